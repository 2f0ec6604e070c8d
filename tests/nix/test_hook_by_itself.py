"""The post-build-hook as a script alone, in surroundings that we make by hand."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from narpost.queue.hook import render_hook

SECONDS = 20.0
SHELLS = [path for path in map(shutil.which, ("sh", "dash", "bash")) if path]
DERIVATION = "/store/0000000000000000000000000000000a-program.drv"
OUTPUT = "/store/0000000000000000000000000000000b-program"
OTHER = "/store/0000000000000000000000000000000c-program-dev"

Done = subprocess.CompletedProcess[str]


@dataclass(frozen=True, slots=True)
class Bench:
    """A hook that queues below *folder*, and whose `ln` and `nix-store` note that they were run."""

    folder: Path

    @property
    def queue(self) -> Path:
        """The folder of links."""
        return self.folder / "gc roots" / "it's" / "queue"

    @property
    def tools(self) -> Path:
        """Where the hook's programs lie."""
        return self.folder / "tools"

    @property
    def hook(self) -> Path:
        """The script."""
        return self.folder / "post-build-hook"

    def tool(self, name: str, script: str) -> None:
        """Make a program *name* that notes its name, and then does *script*."""
        file = self.tools / name
        file.write_text(f"#!/bin/sh\necho {name} >> {self.folder}/calls\n{script}\n")
        file.chmod(0o755)

    def calls(self) -> list[str]:
        """The programs that were run, in order."""
        noted = self.folder / "calls"
        return noted.read_text().split() if noted.exists() else []

    def links(self) -> dict[str, str]:
        """What is queued: where each link leads."""
        return {link.name: str(link.readlink()) for link in self.queue.iterdir()}

    def run(self, variables: Mapping[str, str], *shell: str) -> Done:
        """Run the hook with these variables and no others, by itself or by *shell*."""
        return subprocess.run(
            [*shell, str(self.hook)],
            env=dict(variables),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A hook whose queue folder is there, empty, and has a name that asks for quotes."""
    bench = Bench(tmp_path)
    bench.queue.mkdir(parents=True)
    bench.tools.mkdir()
    bench.tool("ln", f'exec {shutil.which("ln")} "$@"')
    bench.tool("nix-store", f"echo {OUTPUT}; echo {OTHER}")
    monkeypatch.setenv("PATH", str(bench.tools))
    bench.hook.write_text(render_hook(bench.queue.parent))
    monkeypatch.undo()
    bench.hook.chmod(0o755)
    return bench


def built(*outputs: str) -> dict[str, str]:
    """What Nix tells a hook of a build, besides a PATH that leads nowhere."""
    return {"DRV_PATH": DERIVATION, "OUT_PATHS": " ".join(outputs), "PATH": "/nowhere"}


def links_to(*paths: str) -> dict[str, str]:
    """The links that queue *paths*."""
    return {path.rpartition("/")[2]: path for path in paths}


def said_nothing(done: Done) -> bool:
    """Whether the hook ended well and in silence."""
    return (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("shell", SHELLS)
def test_derivation_and_outputs_are_linked(bench: Bench, shell: str) -> None:
    """One run of `ln` queues the derivation and each output under its name."""
    done = bench.run(built(OUTPUT, OTHER), shell)

    assert said_nothing(done)
    assert bench.links() == links_to(DERIVATION, OUTPUT, OTHER)
    assert bench.calls() == ["ln"]


def test_the_file_can_be_run_as_it_is(bench: Bench) -> None:
    """Nix runs the file itself, so it names its own interpreter."""
    done = bench.run(built(OUTPUT))

    assert said_nothing(done)
    assert bench.links() == links_to(DERIVATION, OUTPUT)


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("name", ["odd?name", "a*", "[ab]", "~", "$HOME", "`id`", "a\\b", "#x"])
def test_a_path_is_never_a_pattern(bench: Bench, shell: str, name: str) -> None:
    """What a shell would expand stays as it is, also where files match it."""
    (bench.folder / "odd1name").touch()
    (bench.folder / "a").touch()

    done = bench.run(built(name), shell)

    assert said_nothing(done)
    assert bench.links() == links_to(DERIVATION, name)


@pytest.mark.parametrize("shell", SHELLS)
def test_outputs_that_nix_left_out_are_asked_for(bench: Bench, shell: str) -> None:
    """With OUT_PATHS empty, as in Nix 2.8.0, `nix-store` is asked and its answer queued."""
    done = bench.run(built(), shell)

    assert said_nothing(done)
    assert bench.links() == links_to(DERIVATION, OUTPUT, OTHER)
    assert bench.calls() == ["nix-store", "ln"]


@pytest.mark.parametrize("answer", ["exit 1", "echo broken >&2; exit 1", "kill -9 $$"])
def test_the_derivation_is_queued_when_nix_store_fails(bench: Bench, answer: str) -> None:
    """The daemon asks again for the outputs, so nothing is said."""
    bench.tool("nix-store", answer)

    done = bench.run(built())

    assert done.returncode == 0
    assert bench.links() == links_to(DERIVATION)


def test_the_derivation_is_queued_when_nix_store_is_missing(bench: Bench) -> None:
    """A hook that was written on another machine still queues what it can."""
    (bench.tools / "nix-store").unlink()

    done = bench.run(built())

    assert done.returncode == 0
    assert bench.links() == links_to(DERIVATION)


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("variables", [{}, {"DRV_PATH": "", "OUT_PATHS": ""}, {"OUT_PATHS": "  "}])
def test_nothing_built_queues_nothing(
    bench: Bench, shell: str, variables: Mapping[str, str]
) -> None:
    """Without paths no program is run: an `ln` with an empty list once stopped builds."""
    done = bench.run(variables, shell)

    assert said_nothing(done)
    assert bench.links() == {}
    assert bench.calls() == []


def test_a_hundred_kilobytes_of_outputs_are_queued(bench: Bench) -> None:
    """A thousand outputs fit."""
    outputs = [f"/store/{number:032}-{'x' * 60}" for number in range(1000)]

    done = bench.run(built(*outputs))

    assert len(" ".join(outputs)) > 100_000
    assert said_nothing(done)
    assert bench.links() == links_to(DERIVATION, *outputs)


def test_what_is_queued_already_stays_queued(bench: Bench) -> None:
    """Run twice, it leaves the same links, and writes nothing into a path that is a folder."""
    path = bench.folder / "0000000000000000000000000000000d-folder"
    path.mkdir()

    bench.run(built(str(path)))
    done = bench.run(built(str(path)))

    assert said_nothing(done)
    assert bench.links() == links_to(DERIVATION, str(path))
    assert list(path.iterdir()) == []


def test_hooks_at_once_for_the_same_paths_do_not_disturb_each_other(bench: Bench) -> None:
    """Nix 2.35 runs several hooks at a time: all end in silence, and the links are there."""
    with ThreadPoolExecutor(8) as pool:
        ends = list(pool.map(lambda _: bench.run(built(OUTPUT, OTHER)), range(24)))

    assert all(map(said_nothing, ends))
    assert bench.links() == links_to(DERIVATION, OUTPUT, OTHER)


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("outputs", [(OUTPUT, OTHER), ()], ids=["told by Nix", "asked for"])
@pytest.mark.parametrize("is_file", [False, True], ids=["missing", "a file"])
def test_a_queue_that_cannot_be_written_is_told_in_one_line(
    bench: Bench, shell: str, outputs: tuple[str, ...], is_file: bool
) -> None:
    """The line has the command that mends it, and the build is not failed."""
    bench.queue.rmdir()
    if is_file:
        bench.queue.touch()

    done = bench.run(built(*outputs), shell)

    assert (done.returncode, done.stdout) == (0, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("narpost: could not queue")
    assert line.endswith(f"narpost push {DERIVATION} {OUTPUT} {OTHER}")


@pytest.mark.parametrize("shell", SHELLS)
def test_a_missing_ln_fails_no_build(bench: Bench, shell: str) -> None:
    """Without `ln` nothing can be queued: that is told, and the build is not failed."""
    (bench.tools / "ln").unlink()

    done = bench.run(built(OUTPUT), shell)

    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.count("\n") == 1
    assert "narpost push" in done.stderr


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("closed", ["2>&-", ">&-", "<&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("can_queue", [True, False])
def test_closed_streams_fail_no_build(
    bench: Bench, shell: str, closed: str, can_queue: bool
) -> None:
    """Whichever of stdin, stdout and stderr are closed, the hook queues and exits with 0."""
    if not can_queue:
        bench.queue.rmdir()
    script = f'"$0" "$1" {closed}'

    done = subprocess.run(
        ["/bin/sh", "-c", script, shell, str(bench.hook)],
        env=built(OUTPUT),
        capture_output=True,
        timeout=SECONDS,
        check=False,
    )

    assert done.returncode == 0
    assert not can_queue or bench.links() == links_to(DERIVATION, OUTPUT)


def test_a_broken_pipe_for_stderr_fails_no_build(bench: Bench) -> None:
    """Where nobody reads what the hook says any more, it still exits with 0."""
    bench.queue.rmdir()
    reader, writer = os.pipe()
    os.close(reader)

    done = subprocess.run(
        [bench.hook], env=built(OUTPUT), stderr=writer, timeout=SECONDS, check=False
    )
    os.close(writer)

    assert done.returncode == 0


def test_what_a_build_user_sets_changes_nothing(bench: Bench) -> None:
    """Variables that steer a shell or `ln` do not reach into the hook."""
    variables = {"IFS": "/", "POSIXLY_CORRECT": "1", "VERSION_CONTROL": "numbered", "CDPATH": "/"}

    bench.run(built(OUTPUT, OTHER) | variables)
    done = bench.run(built(OUTPUT, OTHER) | variables)

    assert said_nothing(done)
    assert bench.links() == links_to(DERIVATION, OUTPUT, OTHER)


def test_the_hook_starts_no_other_program(bench: Bench) -> None:
    """Shell and `ln`: no interpreter, no network, no helper."""
    trace = bench.folder / "trace"
    strace = shutil.which("strace")
    if strace is None:
        bench.run(built(OUTPUT))
        assert bench.calls() == ["ln"]
        return
    bench.hook.write_text(bench.hook.read_text().replace(str(bench.tools / "ln"), real_ln()))

    done = bench.run(built(OUTPUT), strace, "-f", "-e", "trace=execve", "-o", str(trace))

    assert said_nothing(done)
    calls = [line for line in trace.read_text().splitlines() if "execve(" in line]
    programs = [line.partition('execve("')[2].partition('"')[0] for line in calls]
    assert programs == [str(bench.hook), real_ln()]


def real_ln() -> str:
    """This machine's `ln`."""
    return str(shutil.which("ln"))

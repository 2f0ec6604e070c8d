"""The post-build-hook as Nix itself runs it, single-user and under its daemon."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from support.machine import Machine
from support.private_store import PrivateStore, derivation

SEVERAL = derivation(
    "several",
    "mkdir $out $dev $doc",
    attributes='outputs = [ "out" "dev" "doc" ];',
)


@pytest.fixture(params=["", "daemon"], ids=["single-user", "daemon"])
def machine(
    private_store: PrivateStore, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Machine]:
    """A machine with the hook on; its builds go the one way or the other."""
    machine = Machine.set_up(private_store, tmp_path / "machine")
    with ExitStack() as stack:
        if request.param:
            stack.enter_context(private_store.daemon())
        yield replace(machine, nix_remote=request.param)


def deriver_of(machine: Machine, path: str) -> str:
    """The derivation that *path* was built by."""
    return machine.run("nix-store", "--query", "--deriver", path).stdout.strip()


def test_a_build_is_queued_with_its_derivation(machine: Machine) -> None:
    """Both are links in the queue folder, and lead into the store."""
    (path,) = machine.build(derivation("made"))

    links = {str(link.readlink()) for link in machine.queue.iterdir()}

    assert links == {path, deriver_of(machine, path)}


def test_dependencies_are_queued_too(machine: Machine) -> None:
    """The hook runs for each build, and not only for the one that was asked for."""
    library = derivation("library")
    (program,) = machine.build(derivation("program", references=[library]))
    (path,) = machine.build(library)

    assert {path, program} <= machine.queued()


def test_all_outputs_are_queued_when_one_was_wanted(machine: Machine) -> None:
    """The other outputs are kept from the garbage collector as well."""
    (wanted,) = machine.build(f"({SEVERAL}).dev")
    outputs = machine.run(
        "nix-store", "--query", "--outputs", deriver_of(machine, wanted)
    ).stdout.split()

    machine.collect_garbage()

    assert len(outputs) == 3
    assert machine.lost(outputs) == set()
    assert set(outputs) <= machine.queued()


def test_a_queue_folder_that_is_missing_fails_no_build(machine: Machine) -> None:
    """Each build is told once, with the remedy, and its dependents are built."""
    machine.queue.rmdir()
    library = derivation("library")
    both = f"[ ({library}) ({derivation('program', references=[library])}) ]"

    done = machine.run("nix-build", "--no-out-link", "--expr", both)

    told = [line for line in done.stderr.splitlines() if "could not queue" in line]
    assert len(done.stdout.split()) == 2
    assert len(told) == 2
    assert all("narpost push /" in line for line in told)


def test_the_remedy_that_the_hook_names_works(machine: Machine) -> None:
    """What was built while the folder was missing is posted by the command in that line."""
    machine.queue.rmdir()
    expression = derivation("made")
    done = machine.run("nix-build", "--no-out-link", "--expr", expression)
    (told,) = [line for line in done.stderr.splitlines() if "could not queue" in line]

    machine.narpost("push", *told.partition("narpost push ")[2].split())

    assert machine.posted() == set(done.stdout.split())


def test_a_failed_build_queues_nothing(machine: Machine) -> None:
    """Nix runs no hook for it, so nothing waits for ever."""
    done = machine.run(
        "nix-build", "--no-out-link", "--expr", derivation("broken", "exit 1"), check=False
    )

    assert done.returncode != 0
    assert machine.queued() == set()


def test_a_build_that_is_checked_again_is_queued_again(machine: Machine) -> None:
    """`nix-build --check` runs the hook once more, and that does no harm."""
    expression = derivation("made", "echo same > $out")
    (path,) = machine.build(expression)
    machine.narpost("daemon", "--drain")

    machine.run("nix-build", "--no-out-link", "--check", "--expr", expression)
    queued_again = machine.queued()
    machine.narpost("daemon", "--drain")

    assert path in queued_again
    assert machine.queued() == set()
    assert machine.posted() == {path}


def test_many_builds_in_parallel_are_all_queued(machine: Machine) -> None:
    """Thirty builds, eight at a time: thirty derivations and thirty outputs wait."""
    together = " ".join(f"({derivation(f'build-{number}')})" for number in range(30))

    done = machine.run("nix-build", "-j8", "--no-out-link", "--expr", f"[ {together} ]")

    outputs = set(done.stdout.split())
    assert len(outputs) == 30
    assert outputs <= machine.queued()
    assert len(machine.queued()) == 60

"""The main job, start to end, on this machine and in a scratch folder.

Thirty derivations that refer to each other are built by real Nix with narpost's hook on, while
the daemon posts them to a cache in a folder. Then the outputs are deleted, and real Nix brings
them back from the cache, with signature checks on.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from narpost.nix.narinfo import NarInfo
from narpost.nix.store_path import StoreDir
from narpost.observe.words import size
from narpost.queue.hook import render_hook
from support.private_store import PrivateStore

NARPOST = Path(sys.executable).with_name("narpost")
LAYERS = (4, 10, 15, 1)
LOOK_SECONDS = 0.05
TIMEOUT_SECONDS = 120

CONSOLE = Console(width=None if sys.stdout.isatty() else 100)

# Bash tells the time without starting a process, so this measures the hook and nothing else.
TIMED_HOOK = """\
#!/bin/bash
begun=$EPOCHREALTIME
{hook}
ended=$EPOCHREALTIME
echo "$DRV_PATH $(( ${{ended/./}} - ${{begun/./}} ))" >> {log}
"""

CONFIG = """\
[queue]
directory = "{queue}"
state = "{folder}/state"

[[cache]]
name = "demo"
url = "file://{cache}"
secret-key-files = ["{folder}/key.private"]
"""


@dataclass(frozen=True, slots=True)
class Scene:
    """A private store, a cache in a folder, and narpost between them."""

    folder: Path
    nix: PrivateStore
    cache: Path
    hook_log: Path

    def narpost(self, *command: str) -> None:
        """Run one of narpost's commands."""
        subprocess.run(
            [NARPOST, *command], env=self.environment(), check=True, timeout=TIMEOUT_SECONDS
        )

    def environment(self) -> dict[str, str]:
        """Variables that lead narpost to the private store and its configuration."""
        return self.nix.environment() | {"NARPOST_CONFIG": str(self.folder / "config.toml")}

    def posted(self) -> list[NarInfo]:
        """What the cache has."""
        store_dir = StoreDir(str(self.nix.store_dir))
        return [NarInfo.parse(file.read_text(), store_dir) for file in self.cache.glob("*.narinfo")]

    def hook_seconds(self) -> dict[str, float]:
        """What the hook took, by the derivation's base name."""
        lines = self.hook_log.read_text().split("\n")[:-1] if self.hook_log.exists() else []
        rows = (line.split() for line in lines)
        return {Path(derivation).name: int(micro) / 1e6 for derivation, micro in rows}


def main() -> None:
    """Play it all, and say what it took."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="narpost-demo-") as name:
        scene = set_the_scene(Path(name).resolve())
        CONSOLE.print(f"A private store in {scene.folder}, a new key, and a cache in a folder.")
        with daemon(scene):
            top = build(scene)
        show(scene)
        bring_back(scene, top)
    CONSOLE.print(f"All of it took {time.monotonic() - begun:.1f} s.")


def set_the_scene(folder: Path) -> Scene:
    """Make store, key, configuration and hook."""
    hook = folder / "post-build-hook"
    nix = PrivateStore.create(folder / "nix", {"post-build-hook": str(hook)})
    scene = Scene(folder, nix, folder / "cache", folder / "hook.log")
    queue = nix.state_dir / "gcroots" / "narpost"
    (folder / "config.toml").write_text(
        CONFIG.format(queue=queue, folder=folder, cache=scene.cache)
    )
    write_program(folder / "hook.sh", render_hook(queue))
    write_program(hook, TIMED_HOOK.format(hook=folder / "hook.sh", log=scene.hook_log))
    keys = (str(folder / "key.private"), str(folder / "key.public"))
    scene.narpost("keygen", "demo.example.org-1", *keys)
    return scene


def write_program(file: Path, text: str) -> None:
    """An executable script."""
    file.write_text(text)
    file.chmod(0o755)


@contextmanager
def daemon(scene: Scene) -> Iterator[None]:
    """`narpost daemon`, until the context ends."""
    with (scene.folder / "daemon.log").open("wb") as log:
        process = subprocess.Popen([NARPOST, "daemon"], env=scene.environment(), stderr=log)
        try:
            yield
        finally:
            process.terminate()
            process.wait(TIMEOUT_SECONDS)


def build(scene: Scene) -> str:
    """Build all derivations, and wait until they are posted; gives the topmost output."""
    total = sum(LAYERS)
    command = ["nix-build", "--no-out-link", "-j2", "--expr", expression()]
    with (scene.folder / "build.log").open("wb") as log, bars() as progress:
        builds = progress.add_task("built by nix-build", total=total)
        posts = progress.add_task("posted by narpost", total=total)
        process = subprocess.Popen(
            command, env=scene.nix.environment(), stdout=subprocess.PIPE, stderr=log, text=True
        )

        def look() -> bool:
            progress.update(builds, completed=len(scene.hook_seconds()))
            posted = len(list(scene.cache.glob("*.narinfo")))
            progress.update(posts, completed=posted)
            return process.poll() is not None and posted == total

        until(look, (scene.folder / "daemon.log").read_text)
        return process.communicate()[0].strip()


def bars() -> Progress:
    """Progress bars on a terminal; without one, their last state."""
    return Progress(
        TextColumn("{task.description:<18}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=CONSOLE,
    )


def until(is_done: Callable[[], bool], tell: Callable[[], str]) -> None:
    """Look again and again; when it takes too long, say what the other side said."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not is_done():
        if time.monotonic() > deadline:
            sys.exit(f"not done within {TIMEOUT_SECONDS} s; the daemon said:\n{tell()}")
        time.sleep(LOOK_SECONDS)


def expression() -> str:
    """Derivations in layers, each referring to some of the layer below."""
    names: list[list[str]] = []
    lines: list[str] = []
    for depth, width in enumerate(LAYERS):
        layer = [f"part-{depth}-{number}" for number in range(width)]
        below = names[-1] if names else []
        for number, name in enumerate(layer):
            needs = below if width == 1 else below[number % 3 :: 3]
            lines.append(f"{name} = make {{ name = {name!r}; needs = [ {' '.join(needs)} ]; }};")
        names.append(layer)
    bindings = "\n".join(lines).replace("'", '"')
    return f"""
      let
        make = {{ name, needs }}: derivation {{
          inherit name needs;
          system = builtins.currentSystem;
          builder = "/bin/sh";
          PATH = "/bin:/usr/bin";
          args = [ "-euc" ''
            mkdir -p $out/bin $out/share
            seq 1 30000 | sed "s/^/$name line /" > $out/share/numbers
            cp /bin/sh $out/bin/$name
            for need in $needs; do ln -s $need $out/share/; done
          '' ];
        }};
        {bindings}
      in {names[-1][0]}
    """


def show(scene: Scene) -> None:
    """The closing table: what the hook cost each build, and what was posted."""
    seconds = scene.hook_seconds()
    posted = sorted(scene.posted(), key=lambda each: each.info.path.name)
    table = Table("build", "hook", "references", "NAR", "posted", title="What was built and posted")
    for narinfo in posted:
        info = narinfo.info
        hook = seconds[info.deriver.base_name] if info.deriver else 0.0
        table.add_row(
            info.path.name,
            f"{hook * 1000:.1f} ms",
            str(len(info.references)),
            size(info.nar_bytes),
            size(narinfo.file_bytes or 0),
        )
    table.add_section()
    table.add_row(
        f"{len(posted)} builds",
        f"{statistics.median(seconds.values()) * 1000:.1f} ms median",
        "",
        size(sum(each.info.nar_bytes for each in posted)),
        size(sum(each.file_bytes or 0 for each in posted)),
    )
    CONSOLE.print(table)
    version = scene.nix.run("nix", "--version").split()[-1]
    if version.startswith("2.8."):
        CONSOLE.print(
            f"[dim]Nix {version} leaves OUT_PATHS empty (nix#6446), so here the hook also asks"
            " nix-store for the outputs; on other versions it runs nothing but ln.[/dim]"
        )


def bring_back(scene: Scene, top: str) -> None:
    """Delete the outputs, and let Nix substitute them from the cache, signatures checked."""
    public_key = (scene.folder / "key.public").read_text()
    paths = scene.nix.run("nix-store", "--query", "--requisites", top).split()
    before = hashes(scene, paths)
    scene.nix.collect_garbage()
    gone = [path for path in paths if not Path(path).exists()]
    CONSOLE.print(f"Deleted {len(gone)} outputs by nix-store --gc: what is posted is let go.")
    client = scene.nix.client("client", f"file://{scene.cache}", [public_key])
    client.run("nix-store", "--realise", top)
    if hashes(scene, paths) != before:
        sys.exit("what came back is not what was built")
    CONSOLE.print(
        f"Brought back {len(paths)} outputs from the cache by real Nix, which checked the"
        f" signatures of {public_key.partition(':')[0]}: the same bytes."
    )


def hashes(scene: Scene, paths: list[str]) -> str:
    """The NAR hashes of *paths*, from their bytes on disk."""
    return "".join(scene.nix.run("nix-hash", "--type", "sha256", path) for path in paths)


if __name__ == "__main__":
    main()

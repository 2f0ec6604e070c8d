"""What narpost's hook costs a build, beside a shell that does nothing and the manual's hook.

Each kind of hook is run once for each of a number of freshly built paths, in turn, so that a
slow moment of the machine falls on all alike. Quote the medians and their ratios.
"""

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from narpost.queue.hook import render_hook
from narpost.queue.spool import FOLDER
from support.private_store import PrivateStore, derivation

MANUAL_HOOK = """\
#!/bin/sh
set -eu
set -f
export IFS=' '
exec nix copy --to 'file://{cache}' $OUT_PATHS
"""

NOTHING = "/bin/sh -c :"
OURS = "narpost's hook"
OURS_WITHOUT_OUT_PATHS = "narpost's hook where Nix leaves OUT_PATHS empty (2.8.0)"
MANUAL = "the manual's hook: nix copy --to file://"


@dataclass(frozen=True, slots=True)
class Build:
    """A derivation and its output, as a hook is told of them."""

    derivation: str
    output: str


def main() -> None:
    """Measure, and print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--builds", type=int, default=40, help="how many paths to run it for")
    parser.add_argument("--json", action="store_true", help="print the seconds as JSON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="narpost-bench-") as folder:
        seconds = measure(Path(folder).resolve(), arguments.builds)
    if arguments.json:
        print(json.dumps(seconds, indent=2))
    else:
        show(seconds)


def measure(folder: Path, builds: int) -> dict[str, list[float]]:
    """Seconds of each run, by kind."""
    nix = PrivateStore.create(folder / "nix")
    queue = nix.state_dir / "gcroots" / "narpost"
    (queue / FOLDER).mkdir(parents=True)
    hook = program(folder / "hook", render_hook(queue))
    manual = program(folder / "manual", MANUAL_HOOK.format(cache=folder / "cache"))
    kinds: Mapping[str, Callable[[Build], tuple[Sequence[str], dict[str, str]]]] = {
        NOTHING: lambda build: (["/bin/sh", "-c", ":"], told(build)),
        OURS: lambda build: ([hook], told(build)),
        OURS_WITHOUT_OUT_PATHS: lambda build: ([hook], told(build) | {"OUT_PATHS": ""}),
        MANUAL: lambda build: ([manual], told(build)),
    }
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    for build in made(nix, builds):
        for kind, prepare in kinds.items():
            command, variables = prepare(build)
            seconds[kind].append(timed(command, nix.environment() | variables))
    return seconds


def made(nix: PrivateStore, count: int) -> list[Build]:
    """That many small builds of their own."""
    expressions = " ".join(f"({derivation(f'small-{number}')})" for number in range(count))
    outputs = nix.build(f"[ {expressions} ]")
    derivers = nix.run("nix-store", "--query", "--deriver", *outputs).split()
    return [Build(*each) for each in zip(derivers, outputs, strict=True)]


def told(build: Build) -> dict[str, str]:
    """What Nix puts into a hook's environment."""
    return {"DRV_PATH": build.derivation, "OUT_PATHS": build.output}


def program(file: Path, text: str) -> str:
    """An executable script."""
    file.write_text(text)
    file.chmod(0o755)
    return str(file)


def timed(command: Sequence[str], environment: Mapping[str, str]) -> float:
    """Seconds from start to end of *command*, which must succeed."""
    begun = time.perf_counter()
    subprocess.run(
        command, env=environment, check=True, capture_output=True, stdin=subprocess.DEVNULL
    )
    return time.perf_counter() - begun


def show(seconds: Mapping[str, Sequence[float]]) -> None:
    """Medians, what each costs over nothing, and how it compares with the manual's."""
    nothing = statistics.median(seconds[NOTHING])
    manual = statistics.median(seconds[MANUAL])
    table = Table("hook", "median", "over nothing", "of the manual's")
    for kind, runs in seconds.items():
        median = statistics.median(runs)
        table.add_row(
            kind,
            f"{median * 1000:.2f} ms",
            f"{(median - nothing) * 1000:+.2f} ms",
            f"{median / manual:.3f}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()

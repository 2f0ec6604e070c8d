"""The rows of the benchmark: what is compared with what, and which mark is to be reached."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import hook
from benchmarks.measure import Cost, Runs, alternate, run
from benchmarks.samples import Sample, Samples
from benchmarks.targets import Buckets, Folders
from support.private_store import PrivateStore

NARPOST = str(Path(sys.executable).with_name("narpost"))
LEVEL = "compression=zstd&compression-level=3"
OURS, PEER, PARALLEL = "narpost", "nix copy", "nix copy, parallel-compression"
FEW = 60
PLANNED_PATHS = 10_000
PLANNED_MISSING = 10
# Until a daemon that was just started has come to rest.
SETTLE_SECONDS = 3
IDLE_SECONDS = 20
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Figure:
    """A number that was to be reached; *is_met* says whether it was."""

    says: str
    value: float
    is_met: bool


@dataclass(frozen=True, slots=True)
class Row:
    """One comparison: the runs of each kind, and what follows from them."""

    work: str
    runs: Mapping[str, Runs]
    figures: Sequence[Figure]
    extra: Mapping[str, Any] = field(default_factory=dict)


class Bench:
    """All rows; *folder* is scratch, *count* the runs of each kind."""

    def __init__(self, folder: Path, count: int) -> None:
        self._folder = folder
        self._count = count
        self._nix = PrivateStore.create(folder / "nix")
        self._samples = Samples(self._nix, folder)
        self._folders = Folders(folder)
        self._log = folder / "log"

    def hook(self) -> Row:
        """The hook, per call."""
        seconds = hook.measure(self._folder / "hook", 30)
        runs = {
            kind: Runs(tuple(Cost(each, 0.0, 0) for each in some)) for kind, some in seconds.items()
        }
        over = runs[hook.OURS].seconds - runs[hook.NOTHING].seconds
        share = runs[hook.OURS].seconds / runs[hook.MANUAL].seconds
        return Row(
            "hook per call",
            runs,
            [
                at_most("ms over a shell that does nothing", over * 1000, 1.5),
                at_most("of the manual's hook", share, 0.08),
            ],
        )

    def large(self) -> Row:
        """One large path into a folder, at the same level."""
        sample = self._samples.large
        nar = self._folder / "large.nar"
        with nar.open("wb") as sink:
            subprocess.run(
                ["nix-store", "--dump", *sample.paths],
                env=self._nix.environment(),
                stdout=sink,
                check=True,
            )
        runs = alternate(
            {
                OURS: lambda: self._push(sample, LEVEL),
                PEER: lambda: self._copy(sample, LEVEL),
                PARALLEL: lambda: self._copy(sample, f"{LEVEL}&parallel-compression=true"),
                "zstd -T2 alone": lambda: self._zstd(nar),
            },
            self._count,
        )
        nar.unlink()
        return Row(
            sample.name,
            runs,
            [
                at_least("of the speed of zstd -T2", ratio(runs, "zstd -T2 alone", OURS), 0.9),
                at_least("x nix copy", ratio(runs, PEER, OURS), 1.7),
                at_least("x its parallel-compression", ratio(runs, PARALLEL, OURS), 1.0),
                at_most("MiB of memory", runs[OURS].peak_bytes / MIB, 256),
            ],
        )

    def small(self) -> Row:
        """Many small paths into a folder, at the same level."""
        return self._beside_peer(self._samples.small, 1.5)

    def documents(self) -> Row:
        """Many tiny files in one path, at the same level."""
        return self._beside_peer(self._samples.documents, 1.5)

    def defaults(self) -> Row:
        """Each one's defaults, and the sizes that come of them."""
        sample = self._samples.mixed
        sizes: dict[str, int] = {}

        def measured(kind: str, act: Callable[[str], Cost]) -> Cost:
            url = self._folders.fresh()
            cost = act(url)
            sizes[kind] = folder_bytes(Path(url.removeprefix("file://")))
            return cost

        runs = alternate(
            {
                OURS: lambda: measured(OURS, lambda url: self._push_to(sample, url)),
                PEER: lambda: measured(PEER, lambda url: self._copy_to(sample, url)),
            },
            1,
        )
        return Row(
            f"each one's defaults, {sample.name}",
            runs,
            [
                at_least("x nix copy", ratio(runs, PEER, OURS), 20.0),
                at_most("of its size", sizes[OURS] / sizes[PEER], 1.25),
            ],
            {"bytes": sizes},
        )

    def bucket(self, buckets: Buckets) -> Row:
        """Many small paths to a real S3 server that is near."""
        sample = self._samples.small
        objects = self._objects(sample)
        runs = alternate(
            {
                OURS: lambda: self._push_far(sample, buckets),
                PEER: lambda: self._copy_far(sample, buckets),
                "obstore alone": lambda: self._obstore(objects, buckets),
            },
            self._count,
        )
        share = runs[OURS].cpu_seconds / runs[PEER].cpu_seconds
        return Row(
            f"{sample.name} to S3",
            runs,
            [
                at_least("of what obstore alone reaches", ratio(runs, "obstore alone", OURS), 0.7),
                at_least("x nix copy over HTTP", ratio(runs, PEER, OURS), 2.0),
                at_most("of its CPU", share, 0.6),
            ],
        )

    def far_bucket(self, buckets: Buckets, seconds: float) -> Row:
        """Many small paths to a real S3 server that is far; the peer gets a few of them."""
        sample = self._samples.small
        few = Sample("few", sample.paths[:FEW])
        runs = alternate(
            {
                OURS: lambda: self._push_far(sample, buckets),
                f"{PEER}, {FEW} of them": lambda: self._copy_far(few, buckets),
            },
            self._count,
        )
        rate = len(sample.paths) / runs[OURS].seconds
        peer_rate = FEW / runs[f"{PEER}, {FEW} of them"].seconds
        return Row(
            f"{sample.name} to S3, {seconds * 1000:.0f} ms away",
            runs,
            [
                at_least("paths a second", rate, 700),
                at_least("x nix copy over HTTP", rate / peer_rate, 20),
            ],
        )

    def nothing_to_do(self) -> Row:
        """A closure that the cache has."""
        sample = self._samples.closure
        url = self._folders.fresh()
        self._push_to(sample, url)
        runs = alternate({OURS: lambda: self._push_to(sample, url)}, self._count)
        return Row(
            "closure of 500, nothing to do",
            runs,
            [at_most("s in all", runs[OURS].seconds, 0.5)],
        )

    def planning(self, buckets: Buckets, near: Buckets) -> Row:
        """10,000 paths of which the cache has all but ten, far away."""
        paths = self._samples.words(PLANNED_PATHS, "planned")
        bucket = near.fresh()
        present = Sample("present", paths[:-PLANNED_MISSING])
        self._push_in_parts(present, near.ours(bucket), near)
        sample = Sample("planned", paths)

        def push() -> Cost:
            return self._push_in_parts(sample, buckets.ours(bucket), buckets)

        runs = alternate({OURS: push}, 1)
        return Row(
            "planning 10,000 paths 50 ms away, 9,990 present",
            runs,
            [at_most("s", runs[OURS].seconds, 5.0)],
        )

    def start(self) -> Row:
        """Commands that have nothing to do."""
        config = self._config(self._folders.fresh())
        environment = self._nix.environment() | {"NARPOST_CONFIG": str(config)}
        runs = alternate(
            {
                f"narpost {name}": lambda name=name: run([NARPOST, name], environment, self._log)
                for name in ("status", "push")
            },
            max(self._count, 7),
        )
        return Row(
            "start",
            runs,
            [at_most(f"ms, {kind}", some.seconds * 1000, 60) for kind, some in runs.items()],
        )

    def idle(self) -> Row:
        """A daemon with nothing to do: its memory, and how often it wakes."""
        config = self._config(self._folders.fresh())
        environment = self._nix.environment() | {"NARPOST_CONFIG": str(config)}
        process = subprocess.Popen([NARPOST, "daemon"], env=environment, stderr=subprocess.DEVNULL)
        try:
            time.sleep(SETTLE_SECONDS)
            before = wake_ups(process.pid)
            time.sleep(IDLE_SECONDS)
            after = wake_ups(process.pid)
            woken = sum(after[thread] - before.get(thread, 0) for thread in after)
            resident = resident_bytes(process.pid)
        finally:
            process.terminate()
            process.wait(60)
        return Row(
            f"idle for {IDLE_SECONDS} s",
            {},
            [
                at_most("MiB resident", resident / MIB, 80),
                at_most("wake-ups", woken, 2),
            ],
        )

    def _beside_peer(self, sample: Sample, mark: float) -> Row:
        runs = alternate(
            {OURS: lambda: self._push(sample, LEVEL), PEER: lambda: self._copy(sample, LEVEL)},
            self._count,
        )
        return Row(sample.name, runs, [at_least("x nix copy", ratio(runs, PEER, OURS), mark)])

    def _push(self, sample: Sample, parameters: str) -> Cost:
        return self._push_to(sample, f"{self._folders.fresh()}?{parameters}")

    def _copy(self, sample: Sample, parameters: str) -> Cost:
        return self._copy_to(sample, f"{self._folders.fresh()}?{parameters}")

    def _push_to(self, sample: Sample, url: str, more: Mapping[str, str] | None = None) -> Cost:
        command = [NARPOST, "push", "--unsigned", "--to", url, *sample.paths]
        cost = run(command, self._nix.environment() | dict(more or {}), self._log)
        self._forget(url)
        return cost

    def _push_in_parts(self, sample: Sample, url: str, buckets: Buckets) -> Cost:
        """Through a queue that is filled beforehand: so many paths are too long a command."""
        config = self._config(url)
        queue = self._nix.state_dir / "gcroots" / "narpost" / "queue"
        queue.mkdir(parents=True, exist_ok=True)
        for path in sample.paths:
            (queue / Path(path).name).symlink_to(path)
        environment = self._nix.environment() | buckets.environment()
        return run([NARPOST, "daemon", "--drain", "--config", str(config)], environment, self._log)

    def _copy_to(self, sample: Sample, url: str) -> Cost:
        cost = run(["nix", "copy", "--to", url, *sample.paths], self._nix.environment(), self._log)
        self._forget(url)
        return cost

    def _push_far(self, sample: Sample, buckets: Buckets) -> Cost:
        url = f"{buckets.ours(buckets.fresh())}&{LEVEL}"
        return self._push_to(sample, url, buckets.environment())

    def _copy_far(self, sample: Sample, buckets: Buckets) -> Cost:
        return self._copy_to(sample, f"{buckets.theirs(buckets.fresh())}?{LEVEL}")

    def _objects(self, sample: Sample) -> Path:
        url = self._folders.fresh()
        run(
            [NARPOST, "push", "--unsigned", "--to", f"{url}?{LEVEL}", *sample.paths],
            self._nix.environment(),
            self._log,
        )
        return Path(url.removeprefix("file://"))

    def _obstore(self, objects: Path, buckets: Buckets) -> Cost:
        script = Path(__file__).with_name("obstore_alone.py")
        command = [sys.executable, str(script), str(objects), buckets.endpoint, buckets.fresh()]
        return run(command, os.environ | buckets.environment(), self._log)

    def _zstd(self, nar: Path) -> Cost:
        packed = nar.with_suffix(".zst")
        program = (
            "import sys, zstandard;"
            "zstandard.ZstdCompressor(level=3, threads=2)"
            ".copy_stream(open(sys.argv[1], 'rb'), open(sys.argv[2], 'wb'),"
            " read_size=1 << 20, write_size=1 << 20)"
        )
        cost = run([sys.executable, "-c", program, str(nar), str(packed)], os.environ, self._log)
        packed.unlink()
        return cost

    def _config(self, url: str) -> Path:
        state = tempfile.mkdtemp(dir=self._folder)
        file = Path(state) / "config.toml"
        file.write_text(f'[queue]\nstate = "{state}"\n\n[[cache]]\nurl = "{url}"\nsign = false\n')
        return file

    def _forget(self, url: str) -> None:
        """Make room, and let no later run find what this one has left; a bare URL is kept."""
        folder, has_parameters, _ = url.removeprefix("file://").partition("?")
        if url.startswith("file://") and has_parameters:
            shutil.rmtree(folder)


def at_least(says: str, value: float, mark: float) -> Figure:
    """A figure that should not be below *mark*."""
    return Figure(f"{says} (at least {mark:g})", value, value >= mark)


def at_most(says: str, value: float, mark: float) -> Figure:
    """A figure that should not be above *mark*."""
    return Figure(f"{says} (at most {mark:g})", value, value <= mark)


def ratio(runs: Mapping[str, Runs], slow: str, quick: str) -> float:
    """How many times longer the one takes than the other."""
    return runs[slow].seconds / runs[quick].seconds


def folder_bytes(folder: Path) -> int:
    """The sizes of all files below *folder*."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def wake_ups(process: int) -> dict[str, int]:
    """How often each thread of *process* has been woken, ever."""
    counts: dict[str, int] = {}
    for status in Path(f"/proc/{process}/task").glob("*/status"):
        for line in status.read_text().split("\n"):
            if line.startswith("voluntary_ctxt"):
                counts[status.parent.name] = int(line.split()[1])
    return counts


def resident_bytes(process: int) -> int:
    """What *process* holds in memory."""
    for line in Path(f"/proc/{process}/status").read_text().split("\n"):
        if line.startswith("VmRSS"):
            return int(line.split()[1]) * 1024
    return 0

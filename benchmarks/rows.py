"""The rows of the benchmark: what is compared with what, and which mark is to be reached."""

import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import hook
from benchmarks.acts import LEVEL, PRETENDED_CORES, Acts
from benchmarks.measure import Cost, Runs, alternate, resident_bytes, wake_ups
from benchmarks.parts import speeds
from benchmarks.samples import Sample, Samples
from benchmarks.targets import Buckets
from support.private_store import PrivateStore

PUSH, DAEMON = "narpost push", "narpost daemon, running"
PEER, PARALLEL, ALONE = "nix copy", "nix copy, parallel-compression", "obstore alone"
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
        self._acts = Acts(self._nix, folder)

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

    def small(self) -> Row:
        """Many small paths into a folder, at the same level."""
        return self._beside_peer(self._samples.small, 1.5)

    def documents(self) -> Row:
        """Many tiny files in one path, at the same level."""
        return self._beside_peer(self._samples.documents, 1.5)

    def large(self) -> Row:
        """One large path into a folder, at the same level."""
        acts, sample = self._acts, self._samples.large
        with self._dumped(sample) as nar:
            more = {
                PARALLEL: lambda: acts.copy(sample, f"{LEVEL}&parallel-compression=true"),
                "zstd -T2 alone": lambda: acts.zstd(nar),
            }
            row = self._beside_peer(sample, 1.7, more)
            parts = speeds(self._nix, sample.paths[0], nar)
        runs = row.runs
        figures = [
            *row.figures,
            at_least(
                "of the speed of zstd -T2, running", ratio(runs, "zstd -T2 alone", DAEMON), 0.9
            ),
            at_least("x its parallel-compression", ratio(runs, PARALLEL, PUSH), 1.0),
            at_most("MiB of memory", runs[DAEMON].peak_bytes / MIB, 256),
        ]
        return Row(row.work, runs, figures, {"speeds": parts})

    def defaults(self) -> Row:
        """Each one's defaults, and the sizes that come of them."""
        sample = self._samples.mixed
        sizes: dict[str, int] = {}

        def measured(kind: str, act: Callable[[Sample, str], Cost]) -> Cost:
            url = self._acts.folders.fresh()
            cost = act(sample, url)
            sizes[kind] = folder_bytes(Path(url.removeprefix("file://")))
            return cost

        runs = alternate(
            {
                PUSH: lambda: measured(PUSH, self._acts.push_to),
                PEER: lambda: measured(PEER, self._acts.copy_to),
            },
            1,
        )
        return Row(
            f"each one's defaults, {sample.name}",
            runs,
            [
                at_least("x nix copy", ratio(runs, PEER, PUSH), 20.0),
                at_most("of its size", sizes[PUSH] / sizes[PEER], 1.25),
            ],
            {"bytes": sizes},
        )

    def nothing_to_do(self) -> Row:
        """A closure that the cache has: by a command, and by a daemon that knows it already."""
        sample = self._samples.closure
        url = self._acts.folders.fresh()
        self._acts.push_to(sample, url)
        runs = dict(alternate({PUSH: lambda: self._acts.push_to(sample, url)}, self._count))
        with self._acts.daemon(url) as running:
            running.post(sample.paths)
            runs |= alternate({DAEMON: lambda: running.post(sample.paths)}, self._count)
        return Row(
            "closure of 500, nothing to do",
            runs,
            [
                at_most("s in all", runs[PUSH].seconds, 0.5),
                at_most("s once the daemon runs", runs[DAEMON].seconds, 0.1),
            ],
        )

    def start(self) -> Row:
        """Commands that have nothing to do."""
        url = self._acts.folders.fresh()
        runs = alternate(
            {
                f"narpost {name}": lambda name=name: self._acts.plain(name, url)
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
        with self._acts.daemon(self._acts.folders.fresh()) as running:
            time.sleep(SETTLE_SECONDS)
            before = wake_ups(running.process)
            time.sleep(IDLE_SECONDS)
            after = wake_ups(running.process)
            resident = resident_bytes(running.process)
        woken = sum(after[thread] - before.get(thread, 0) for thread in after)
        return Row(
            f"idle for {IDLE_SECONDS} s",
            {},
            [at_most("MiB resident", resident / MIB, 80), at_most("wake-ups", woken, 2)],
        )

    def bucket(self, buckets: Buckets) -> Row:
        """Many small paths to a real S3 server that is near."""
        acts, sample = self._acts, self._samples.small
        objects = acts.objects(sample)
        runs = alternate(
            {
                PUSH: lambda: acts.push_far(sample, buckets),
                DAEMON: lambda: acts.post_far(sample, buckets),
                PEER: lambda: acts.copy_far(sample, buckets),
                ALONE: lambda: acts.obstore(objects, buckets),
            },
            self._count,
        )
        share = runs[PUSH].cpu_seconds / runs[PEER].cpu_seconds
        return Row(
            f"{sample.name} to S3",
            runs,
            [
                at_least("of what obstore alone reaches", ratio(runs, ALONE, PUSH), 0.7),
                at_least("x nix copy over HTTP", ratio(runs, PEER, PUSH), 2.0),
                at_most("of its CPU", share, 0.6),
            ],
        )

    def far_bucket(self, buckets: Buckets, seconds: float) -> Row:
        """Many small paths to a real S3 server that is far; the peer gets a few of them."""
        acts, sample = self._acts, self._samples.small
        few = Sample("few", sample.paths[:FEW])
        objects, cores = acts.objects(sample), acts.more_cores()
        peer = f"{PEER}, {FEW} of them"
        many = f"{peer}, as if on {PRETENDED_CORES} cores"
        kinds = {
            PUSH: lambda: acts.push_far(sample, buckets),
            DAEMON: lambda: acts.post_far(sample, buckets),
            ALONE: lambda: acts.obstore(objects, buckets),
            peer: lambda: acts.copy_far(few, buckets),
        }
        if cores:
            kinds[many] = lambda: acts.copy_far(few, buckets, cores)
        runs = alternate(kinds, self._count)
        rate = len(sample.paths) / runs[DAEMON].seconds
        figures = [
            at_least("paths a second", rate, 700),
            at_least("of what obstore alone reaches", ratio(runs, ALONE, DAEMON), 0.7),
            at_least("x nix copy over HTTP", rate / (FEW / runs[peer].seconds), 20),
        ]
        if cores:
            says = f"x nix copy as if on {PRETENDED_CORES} cores"
            figures.append(at_least(says, rate / (FEW / runs[many].seconds), 4))
        return Row(f"{sample.name} to S3, {seconds * 1000:.0f} ms away", runs, figures)

    def planning(self, roads: Mapping[float, Buckets]) -> Row:
        """10,000 paths of which the cache has all but ten, near and far (*roads*, by seconds)."""
        paths = self._samples.words(PLANNED_PATHS, "planned")
        near = roads[0.0]
        bucket = near.fresh()
        self._acts.drain(paths[:-PLANNED_MISSING], near.ours(bucket), near)
        runs = {
            f"{seconds * 1000:.0f} ms away": Runs(
                (self._acts.drain(paths, buckets.ours(bucket), buckets),)
            )
            for seconds, buckets in roads.items()
        }
        return Row(
            "10,000 paths, 9,990 present",
            runs,
            [at_most(f"s, {kind}", some.seconds, 5.0) for kind, some in runs.items()],
        )

    def _beside_peer(
        self, sample: Sample, mark: float, more: Mapping[str, Callable[[], Cost]] | None = None
    ) -> Row:
        acts = self._acts
        runs = alternate(
            {
                PUSH: lambda: acts.push(sample, LEVEL),
                DAEMON: lambda: acts.post(sample, LEVEL),
                PEER: lambda: acts.copy(sample, LEVEL),
                **(more or {}),
            },
            self._count,
        )
        return Row(
            sample.name,
            runs,
            [
                at_least("x nix copy, running", ratio(runs, PEER, DAEMON), mark),
                at_least("x nix copy, push", ratio(runs, PEER, PUSH), mark),
            ],
        )

    @contextmanager
    def _dumped(self, sample: Sample) -> Iterator[Path]:
        """The NAR of a sample of one path, as a file."""
        nar = self._folder / "dumped.nar"
        with nar.open("wb") as sink:
            subprocess.run(
                ["nix-store", "--dump", *sample.paths],
                env=self._nix.environment(),
                stdout=sink,
                check=True,
            )
        yield nar
        nar.unlink()


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

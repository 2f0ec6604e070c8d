"""What is timed: the programs that post, each as whole processes."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import Cost, processor_seconds, resident_bytes, run
from benchmarks.samples import Sample
from benchmarks.targets import Buckets, Folders
from narpost.queue.lock import DaemonLock
from support.private_store import PrivateStore

NARPOST = str(Path(sys.executable).with_name("narpost"))
LEVEL = "compression=zstd&compression-level=3"
# Nix has one request under way for each core that it sees.
PRETENDED_CORES = 16
_CORES_SOURCE = "int get_nprocs(void) { return %d; }\nint get_nprocs_conf(void) { return %d; }\n"

_POLL_SECONDS = 0.002
_WAIT_SECONDS = 120.0
# A daemon's own start is over when it has the lock, and it has nothing to do.
_SETTLE_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Running:
    """A daemon that works on *queue*."""

    process: int
    queue: Path

    def post(self, paths: Sequence[str]) -> Cost:
        """Queue *paths* as the hook does, and wait until all links are gone."""
        begun, busy = time.perf_counter(), processor_seconds(self.process)
        for path in paths:
            (self.queue / Path(path).name).symlink_to(path)
        while any(self.queue.iterdir()):
            if time.perf_counter() - begun > _WAIT_SECONDS:
                raise TimeoutError(f"{len(list(self.queue.iterdir()))} paths are still queued")
            time.sleep(_POLL_SECONDS)
        seconds = time.perf_counter() - begun
        return Cost(
            seconds,
            processor_seconds(self.process) - busy,
            resident_bytes(self.process, is_peak=True),
        )


class Acts:
    """Posting with *nix*, into new folders below *folder* or into buckets."""

    def __init__(self, nix: PrivateStore, folder: Path) -> None:
        self.nix = nix
        self.folders = Folders(folder)
        self._folder = folder
        self._log = folder / "log"

    def push(self, sample: Sample, parameters: str) -> Cost:
        """`narpost push` into a new folder."""
        return self.push_to(sample, f"{self.folders.fresh()}?{parameters}")

    def copy(self, sample: Sample, parameters: str) -> Cost:
        """`nix copy` into a new folder."""
        return self.copy_to(sample, f"{self.folders.fresh()}?{parameters}")

    def post(self, sample: Sample, parameters: str) -> Cost:
        """A daemon that runs posts into a new folder."""
        url = f"{self.folders.fresh()}?{parameters}"
        with self.daemon(url) as running:
            cost = running.post(sample.paths)
        self._forget(url)
        return cost

    def push_to(self, sample: Sample, url: str, more: Mapping[str, str] | None = None) -> Cost:
        """`narpost push` to *url*; what is beside it lies on the same disk as all else."""
        command = [NARPOST, "push", "--unsigned", "--to", url, *sample.paths]
        cost = self.run(command, self._narpost("file:///unused") | dict(more or {}))
        self._forget(url)
        return cost

    def copy_to(self, sample: Sample, url: str, more: Mapping[str, str] | None = None) -> Cost:
        """`nix copy` to *url*."""
        command = ["nix", "copy", "--to", url, *sample.paths]
        cost = self.run(command, self.nix.environment() | dict(more or {}))
        self._forget(url)
        return cost

    def push_far(self, sample: Sample, buckets: Buckets) -> Cost:
        """`narpost push` into a new bucket."""
        url = f"{buckets.ours(buckets.fresh())}&{LEVEL}"
        return self.push_to(sample, url, buckets.environment())

    def post_far(self, sample: Sample, buckets: Buckets) -> Cost:
        """A daemon that runs posts into a new bucket."""
        url = f"{buckets.ours(buckets.fresh())}&{LEVEL}"
        with self.daemon(url, buckets.environment()) as running:
            return running.post(sample.paths)

    def copy_far(
        self, sample: Sample, buckets: Buckets, more: Mapping[str, str] | None = None
    ) -> Cost:
        """`nix copy` into a new bucket, over HTTP."""
        return self.copy_to(sample, f"{buckets.theirs(buckets.fresh())}?{LEVEL}", more)

    def drain(self, paths: Sequence[str], url: str, buckets: Buckets) -> Cost:
        """`narpost daemon --drain` for a queue that is full beforehand."""
        environment = self._narpost(url) | buckets.environment()
        for path in paths:
            (self._queue() / Path(path).name).symlink_to(path)
        return self.run([NARPOST, "daemon", "--drain"], environment)

    def plain(self, command: str, url: str) -> Cost:
        """One of our commands without arguments."""
        return self.run([NARPOST, command], self._narpost(url))

    def obstore(self, objects: Path, buckets: Buckets) -> Cost:
        """The object-store library alone, with the objects that lie in a folder."""
        script = Path(__file__).with_name("obstore_alone.py")
        command = [sys.executable, str(script), str(objects), buckets.endpoint, buckets.fresh()]
        return self.run(command, os.environ | buckets.environment())

    def objects(self, sample: Sample) -> Path:
        """A folder with what `narpost push` makes of *sample*."""
        url = self.folders.fresh()
        command = [NARPOST, "push", "--unsigned", "--to", f"{url}?{LEVEL}", *sample.paths]
        self.run(command, self._narpost("file:///unused"))
        return Path(url.removeprefix("file://"))

    def zstd(self, nar: Path) -> Cost:
        """zstd alone, with two threads, from file to file."""
        packed = nar.with_suffix(".zst")
        program = (
            "import sys, zstandard;"
            "zstandard.ZstdCompressor(level=3, threads=2)"
            ".copy_stream(open(sys.argv[1], 'rb'), open(sys.argv[2], 'wb'),"
            " read_size=1 << 20, write_size=1 << 20)"
        )
        cost = self.run([sys.executable, "-c", program, str(nar), str(packed)], os.environ)
        packed.unlink()
        return cost

    def run(self, command: Sequence[str], environment: Mapping[str, str]) -> Cost:
        """Any command."""
        return run(command, environment, self._log)

    def more_cores(self) -> dict[str, str]:
        """Variables that let Nix see more cores than there are; none without a C compiler."""
        if not shutil.which("cc"):
            return {}
        source, library = self._folder / "cores.c", self._folder / "cores.so"
        source.write_text(_CORES_SOURCE % (PRETENDED_CORES, PRETENDED_CORES))
        subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
        return {"LD_PRELOAD": str(library)}

    @contextmanager
    def daemon(self, url: str, more: Mapping[str, str] | None = None) -> Iterator[Running]:
        """A daemon with *url* as its cache, that has come to rest."""
        environment = self._narpost(url) | dict(more or {})
        queue = self._queue()
        process = subprocess.Popen([NARPOST, "daemon"], env=environment, stderr=subprocess.DEVNULL)
        try:
            while not DaemonLock(queue.parent).is_held():
                time.sleep(_POLL_SECONDS)
            time.sleep(_SETTLE_SECONDS)
            yield Running(process.pid, queue)
        finally:
            process.terminate()
            process.wait(60)

    def _queue(self) -> Path:
        queue = self.nix.state_dir / "gcroots" / "narpost" / "queue"
        queue.mkdir(parents=True, exist_ok=True)
        return queue

    def _narpost(self, url: str) -> dict[str, str]:
        state = tempfile.mkdtemp(dir=self._folder)
        file = Path(state) / "config.toml"
        file.write_text(f'[queue]\nstate = "{state}"\n\n[[cache]]\nurl = "{url}"\nsign = false\n')
        return self.nix.environment() | {"NARPOST_CONFIG": str(file)}

    def _forget(self, url: str) -> None:
        """Make room, and let no later run find what this one has left; a bare URL is kept."""
        folder, has_parameters, _ = url.removeprefix("file://").partition("?")
        if url.startswith("file://") and has_parameters:
            shutil.rmtree(folder)

"""Publishing: making paths visible in one cache, whole or not at all.

A path's NAR is sent as soon as it is packed, beside all others. Its narinfo waits until those
of its references are there, so that at every instant each narinfo has its NAR and its closure
behind it, wherever we are killed.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from narpost.cache.binary_cache import BinaryCache, Nar
from narpost.errors import (
    CacheRefused,
    CacheUnreachable,
    NarpostError,
    Passing,
    Permanent,
    StoreUnreachable,
)
from narpost.nix.cache_names import nar_key
from narpost.nix.narinfo import NarInfo
from narpost.nix.path_info import PathInfo
from narpost.nix.signing import SecretKey
from narpost.nix.store_path import StorePath
from narpost.push.compression import Compression
from narpost.push.lanes import Lanes, up_to
from narpost.push.pack import IN_MEMORY_BYTES, LARGE_AT_ONCE, Packed, Packer
from narpost.push.plan import Plan
from narpost.push.room import Room

# NARs in memory are at most SMALL_LANES * BATCH_BYTES, and as much again compressed.
SMALL_LANES = 6
BATCH = 16
BATCH_BYTES = 8 << 20
NARINFO_LANES = 2
NARINFOS = 64
# What may lie packed on the disk: at most so much, or one path that is larger.
PACKED_BYTES = 16 << 30
# With more than this still to be packed, there is a hurry.
BACKLOG_BYTES = 1 << 30

Visible = Callable[[NarInfo], None]
Failed = Callable[[StorePath, Exception], None]
Ended = Callable[[StorePath, Exception | None], None]


@dataclass(slots=True)
class _Entry:
    """Something queued, that ends when all its jobs have ended."""

    path: StorePath
    ended: Ended
    waits_for: int = 0
    error: Exception | None = None


@dataclass(slots=True, eq=False)
class _Job:
    """A path on its way; *narinfo* is there when its NAR is."""

    info: PathInfo
    waits_for: int = 0
    narinfo: NarInfo | None = None
    has_ended: bool = False
    referrers: list["_Job"] = field(default_factory=list)
    entries: list[_Entry] = field(default_factory=list)


class Publisher:
    """Publishes each path once, however many plans want it.

    Calls *on_visible* after each, and *on_failed* for each that fails by itself.
    """

    def __init__(
        self,
        cache: BinaryCache,
        packer: Packer,
        compression: Compression,
        keys: Sequence[SecretKey],
        on_visible: Visible,
        on_failed: Failed,
        packed_bytes: int = PACKED_BYTES,
    ) -> None:
        self._cache = cache
        self._packer = packer
        self._compression = compression
        self._keys = tuple(keys)
        self._on_visible = on_visible
        self._on_failed = on_failed
        self._jobs: dict[StorePath, _Job] = {}
        self._unpacked_bytes = 0
        self._room = Room(packed_bytes)
        self._small = Lanes(SMALL_LANES, _take_small, self._send_small)
        self._large = Lanes(LARGE_AT_ONCE, up_to(1), self._send_large)
        self._narinfos = Lanes(NARINFO_LANES, up_to(NARINFOS), self._show)

    def post(self, plan: Plan, paths: Iterable[StorePath], ended: Ended) -> None:
        """Begin *plan*; calls *ended* for each of *paths* when what it awaits is over."""
        jobs: dict[StorePath, _Job] = {}
        for step in plan.steps:
            # References come first in a plan, so what a step waits for has begun.
            jobs[step.info.path] = self._begin(step.info, [jobs[path] for path in step.after])
        for path in paths:
            awaited = [jobs[each] for each in plan.awaits[path]]
            entry = _Entry(path, ended, len(awaited))
            for job in awaited:
                job.entries.append(entry)
            if not awaited:
                ended(path, None)

    def stop(self) -> None:
        """Leave what no lane has taken yet; nobody is told of it."""
        self._small.stop()
        self._large.stop()

    def give_up(self, error: Exception) -> None:
        """End what no lane has taken yet with *error*."""
        for job in (*self._small.stop(), *self._large.stop()):
            self._unpacked_bytes -= job.info.nar_bytes
            self._end(job, error)

    async def finished(self) -> None:
        """Returns when all that was begun is over."""
        await self._small.finished()
        await self._large.finished()
        await self._narinfos.finished()

    def _begin(self, info: PathInfo, after: Sequence[_Job]) -> _Job:
        job = self._jobs.get(info.path)
        if job is None:
            job = self._jobs[info.path] = _Job(info, len(after))
            for reference in after:
                reference.referrers.append(job)
            self._unpacked_bytes += info.nar_bytes
            (self._small if info.nar_bytes <= IN_MEMORY_BYTES else self._large).put(job)
        return job

    async def _send_small(self, jobs: list[_Job]) -> None:
        in_a_hurry = self._begin_to_pack([job.info for job in jobs])
        jobs = [job for job in jobs if not job.has_ended]
        infos = [job.info for job in jobs]
        results = await self._packer.pack_small(infos, in_a_hurry=in_a_hurry)
        packed: list[tuple[_Job, Packed]] = []
        for job, result in zip(jobs, results, strict=True):
            if isinstance(result, Packed):
                packed.append((job, result))
            else:
                self._fail(job, result)
        await self._send(packed)

    async def _send_large(self, jobs: list[_Job]) -> None:
        (job,) = jobs
        async with self._room.of(job.info.nar_bytes):
            await self._pack_and_send(job)

    async def _pack_and_send(self, job: _Job) -> None:
        try:
            in_a_hurry = self._begin_to_pack([job.info])
            if job.has_ended:  # A reference of it failed meanwhile.
                return
            packed = await self._packer.pack_large(job.info, in_a_hurry=in_a_hurry)
        except Exception as error:  # Whatever it is, it is this path's alone.
            self._fail(job, error)
            return
        try:
            await self._send([(job, packed)])
        finally:
            if isinstance(packed.body, Path):
                # Without a narinfo it was not sent, and is wanted once more.
                if job.narinfo is None:
                    self._packer.shelf.keep(packed.body)
                else:
                    packed.body.unlink(missing_ok=True)

    def _begin_to_pack(self, infos: Sequence[PathInfo]) -> bool:
        """Whether there is a hurry: so much waits, these included."""
        in_a_hurry = self._unpacked_bytes > BACKLOG_BYTES
        self._unpacked_bytes -= sum(info.nar_bytes for info in infos)
        return in_a_hurry

    async def _send(self, packed: Sequence[tuple[_Job, Packed]]) -> None:
        described = [(job, each, self._describe(each)) for job, each in packed]
        nars = [Nar(narinfo.url, each.body, each.file_bytes) for _, each, narinfo in described]
        errors = await self._cache.put_nars(nars)
        for (job, _, narinfo), error in zip(described, errors, strict=True):
            if error is not None:
                self._fail(job, error)
            elif not job.has_ended:
                job.narinfo = narinfo
                self._show_if_ready(job)

    def _show_if_ready(self, job: _Job) -> None:
        if job.narinfo is not None and not job.waits_for:
            self._narinfos.put(job)

    async def _show(self, jobs: list[_Job]) -> None:
        """Last, since readers take a narinfo as a promise that all else is there."""
        narinfos = [job.narinfo for job in jobs if job.narinfo]
        errors = await self._cache.put_narinfos(narinfos)
        for job, narinfo, error in zip(jobs, narinfos, errors, strict=True):
            if error is None:
                self._on_visible(narinfo)
                self._end(job, None)
            else:
                self._fail(job, error)

    def _fail(self, job: _Job, error: Exception) -> None:
        self._on_failed(job.info.path, error)
        self._end(job, error)

    def _end(self, first: _Job, error: Exception | None) -> None:
        """A job is over: tell those that wait for it; where it failed, they fail too."""
        over = deque([(first, error)])
        while over:
            job, error = over.popleft()
            if job.has_ended:
                continue
            job.has_ended = True
            del self._jobs[job.info.path]
            for referrer in job.referrers:
                if error is None:
                    referrer.waits_for -= 1
                    self._show_if_ready(referrer)
                else:
                    over.append((referrer, _of_reference(referrer.info.path, error)))
            for entry in job.entries:
                _over(entry, error)

    def _describe(self, packed: Packed) -> NarInfo:
        compression = self._compression.name
        return NarInfo(
            info=self._signed(packed.info),
            url=nar_key(packed.file_hash, compression),
            compression=compression,
            file_hash=packed.file_hash,
            file_bytes=packed.file_bytes,
        )

    def _signed(self, info: PathInfo) -> PathInfo:
        if not self._keys:
            return info
        fingerprint = info.fingerprint(self._cache.info.store_dir)
        ours = {key.sign(fingerprint) for key in self._keys}
        # Nix keeps signatures in a sorted set.
        return replace(info, signatures=tuple(sorted(ours.union(info.signatures))))


def _take_small(waiting: deque[_Job]) -> list[_Job]:
    """Up to BATCH jobs of up to BATCH_BYTES together, at least one."""
    batch = [waiting.popleft()]
    left = BATCH_BYTES - batch[0].info.nar_bytes
    while waiting and len(batch) < BATCH and waiting[0].info.nar_bytes <= left:
        left -= waiting[0].info.nar_bytes
        batch.append(waiting.popleft())
    return batch


def _over(entry: _Entry, error: Exception | None) -> None:
    entry.waits_for -= 1
    entry.error = entry.error or error
    if not entry.waits_for:
        entry.ended(entry.path, entry.error)


def _of_reference(path: StorePath, error: Exception) -> NarpostError:
    kinds = (Permanent, CacheUnreachable, CacheRefused, StoreUnreachable)
    kind = next((kind for kind in kinds if isinstance(error, kind)), Passing)
    hint = error.hint if isinstance(error, NarpostError) else ""
    return kind(f"a reference of {path} is not there: {error}", hint)

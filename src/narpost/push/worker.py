"""The worker of one cache: takes entries in hand, and sees each to its end.

An entry's fate is its own: what fails is postponed or set aside, and the rest goes on.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from narpost.cache.binary_cache import BinaryCache
from narpost.errors import (
    CacheRefused,
    NarpostError,
    ObjectRefused,
    Passing,
    PathVanished,
    Permanent,
    StoreUnreachable,
)
from narpost.events import Planned, Posted, Troubled
from narpost.nix.narinfo import NarInfo
from narpost.nix.path_info import PathInfo
from narpost.nix.signing import PublicKey
from narpost.nix.store_path import StorePath
from narpost.push.cache_watch import CacheWatch, Surroundings
from narpost.push.health import may_be_the_cache
from narpost.push.pack import Packer
from narpost.push.plan import plan
from narpost.push.publish import Failed, Publisher, Visible
from narpost.push.seen import Seen
from narpost.queue.queue import Queue
from narpost.store.store import Store

# Large, since presence of many is asked for at once more cheaply.
BATCH = 10_000
IN_HAND = 20_000
# Somebody wants this machine to stop, and all that is queued is safe.
FINISH_SECONDS = 10.0


class Worker:
    """Posts the queue's entries to the cache *name*."""

    def __init__(
        self,
        name: str,
        *,
        queue: Queue,
        store: Store,
        cache: BinaryCache,
        seen: Seen,
        packer: Packer,
        publisher_of: Callable[[Visible, Failed], Publisher],
        upstream_keys: Sequence[PublicKey],
        around: Surroundings,
    ) -> None:
        self.name = name
        self._store_trouble: NarpostError | None = None
        self._queue = queue
        self._store = store
        self._cache = cache
        self._packer = packer
        self._publisher = publisher_of(self._visible, self._suffered)
        self._upstream_keys = tuple(upstream_keys)
        self._around = around
        self._seen = seen
        self._watch = CacheWatch(name, self._open, queue.ledger, around)
        self._refused_at: dict[StorePath, int] = {}
        self._in_hand = 0
        self._plans: set[asyncio.Task[None]] = set()
        self._asking = ThreadPoolExecutor(1, "ask-store")
        self._work = asyncio.Event()

    @property
    def trouble(self) -> NarpostError | None:
        """What ails the cache, or the store, if anything."""
        return self._watch.trouble or self._store_trouble

    def wake(self) -> None:
        """There may be new work."""
        self._work.set()

    def hurry(self) -> None:
        """Somebody wants it tried again now."""
        self._watch.hurry()

    async def run(self, tries_limit: int | None = None) -> None:
        """Post what is due, for ever; ends by cancellation, with what is in hand left running.

        A cache that does not come up within *tries_limit* tries ends it with that error.
        """
        await self._watch.until_up(tries_limit)
        await self._end_uploads()
        while True:
            self._work.clear()
            if self._watch.is_down:
                await self._watch.until_up(tries_limit)
            self._take()
            await self._until_due()

    def clear(self) -> None:
        """Clear away what a daemon before this one has left half done."""
        self._packer.shelf.clear()

    async def finish(self) -> None:
        """Let what was begun come to its end, and the rest be: it stays queued.

        What takes longer than FINISH_SECONDS is left as it is, for the next start.
        """
        for task in self._plans:
            task.cancel()
        self._publisher.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FINISH_SECONDS):
                await self._publisher.finished()

    def close(self) -> None:
        """Let the threads end, when they come to it."""
        self._packer.close()
        self._asking.shutdown(wait=False, cancel_futures=True)

    async def _open(self) -> None:
        if await self._cache.open():
            self._seen.forget()

    async def _end_uploads(self) -> None:
        """What lies packed from an earlier daemon may be half in the cache, and is sent anew."""
        left_over = self._packer.shelf.names()
        if not left_over:
            return
        try:
            await self._cache.end_uploads(left_over)
        except NarpostError as error:
            self._around.emit(Troubled("clean up", error.message))

    def _take(self) -> None:
        while self._free_hands and not self._watch.is_down:
            batch = self._queue.claim(self.name, min(BATCH, self._free_hands))
            if not batch:
                return
            self._in_hand += len(batch)
            task = asyncio.create_task(self._post(batch))
            self._plans.add(task)
            task.add_done_callback(self._plans.discard)

    @property
    def _free_hands(self) -> int:
        return max(0, (1 if self._watch.is_on_trial else IN_HAND) - self._in_hand)

    async def _until_due(self) -> None:
        # With full hands only an end matters, and each end wakes us.
        seconds = self._queue.next_due_in(self.name) if self._free_hands else None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._work.wait()

    async def _post(self, batch: Sequence[StorePath]) -> None:
        """Post the closures of *batch*; each entry then has its own verdict."""
        try:
            loop = asyncio.get_running_loop()
            closure = await loop.run_in_executor(self._asking, self._store.closure, batch)
            present, unknown = await self._present(closure)
            known = {path: info for path, info in closure.items() if path not in unknown}
            decided = plan(known, present)
        except Exception as error:  # The edge: whatever it is, the entries stay.
            if isinstance(error, NarpostError) and may_be_the_cache(error):
                self._watch.collapse(error)
                self._publisher.give_up(error)
            elif isinstance(error, StoreUnreachable):
                self._store_trouble = error
            if len(batch) > 1 and not isinstance(error, Passing):
                # It may be that of one entry alone, so look for it.
                middle = len(batch) // 2
                await self._post(batch[:middle])
                await self._post(batch[middle:])
                return
            for path in batch:
                self._ended(path, error)
            return
        for path, reason in unknown.items():
            self._suffered(path, reason)
        if self._watch.is_down and self._watch.trouble:
            for path in batch:
                self._ended(path, self._watch.trouble)
            return
        nar_bytes = sum(step.info.nar_bytes for step in decided.steps)
        self._around.emit(Planned(self.name, len(decided.steps), nar_bytes))
        whole = [path for path in batch if path in known and path not in decided.lacking]
        self._publisher.post(decided, whole, self._ended)
        for path in batch:
            lost = path if path not in known else decided.lacking.get(path)
            if lost is not None:
                self._ended(path, unknown.get(lost) or _vanished(path, lost))

    async def _present(
        self, closure: Mapping[StorePath, PathInfo]
    ) -> tuple[set[StorePath], dict[StorePath, Exception]]:
        """What of *closure* is not ours to post, since upstream or the cache has it.

        Also the paths for which that cannot be said, with the reason.
        """
        upstream = {path for path, info in closure.items() if self._is_upstream(info)}
        self._seen.forget_old()
        asked = closure.keys() - upstream - self._seen.among(closure)
        present, unknown = await self._cache.present(asked)
        self._seen.add(present)
        # What became visible while we asked counts too.
        seen = self._seen.among(closure)
        return upstream | seen, {path: unknown[path] for path in unknown.keys() - seen}

    def _is_upstream(self, info: PathInfo) -> bool:
        if not info.signatures or not self._upstream_keys:
            return False
        fingerprint = info.fingerprint(self._store.store_dir)
        return any(key.has_signed(fingerprint, info.signatures) for key in self._upstream_keys)

    def _ended(self, path: StorePath, error: Exception | None) -> None:
        """The verdict on one entry."""
        self._in_hand -= 1
        self._work.set()
        try:
            if error is None:
                self._queue.confirm(self.name, path)
                self._refused_at.pop(path, None)
                self._watch.thrive()
        except Exception as failure:  # The edge: whatever it is, the entry stays.
            error = failure
        if error is not None:
            self._failed(path, error)

    def _failed(self, path: StorePath, error: Exception) -> None:
        if not isinstance(error, NarpostError):
            error = NarpostError(f"narpost itself failed: {type(error).__name__}: {error}")
        if isinstance(error, Permanent):
            self._queue.set_aside(self.name, path, error)
        elif may_be_the_cache(error) and self._watch.is_down:
            self._queue.put_back(self.name, path, error)
        elif isinstance(error, CacheRefused) and self._takes_others(path):
            del self._refused_at[path]
            refused = ObjectRefused(error.message, error.hint)
            self._queue.set_aside(self.name, path, refused)
        else:
            tries = self._queue.tries(self.name, path) + 1
            self._queue.postpone(self.name, path, error, self._around.delay(tries))

    def _takes_others(self, path: StorePath) -> bool:
        """Whether the cache took something else since it first refused *path*."""
        first = self._refused_at.setdefault(path, self._watch.successes)
        return self._watch.successes > first

    def _suffered(self, path: StorePath, error: Exception) -> None:
        """A path failed by itself, and perhaps the cache with it."""
        self._work.set()
        if isinstance(error, StoreUnreachable):
            self._store_trouble = error
        if isinstance(error, NarpostError) and self._watch.suffer(path, error):
            self._publisher.give_up(error)

    def _visible(self, narinfo: NarInfo) -> None:
        info, file_bytes = narinfo.info, narinfo.file_bytes or 0
        if self._watch.is_on_trial:
            self._work.set()
        self._watch.take()
        self._store_trouble = None
        self._seen.add([info.path])
        sizes = (info.nar_bytes, file_bytes)
        self._queue.ledger.post(info.path, self.name, sizes, self._around.clock())
        self._around.emit(Posted(self.name, info.path.base_name, info.nar_bytes, file_bytes))


def _vanished(path: StorePath, lost: StorePath) -> PathVanished:
    if lost == path:
        return PathVanished(f"{path} is no longer in the store")
    return PathVanished(f"{path} needs {lost}, which is no longer in the store")

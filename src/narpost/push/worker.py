"""The worker of one cache: takes entries in hand, and sees each to its end.

An entry's fate is its own: what fails is postponed or set aside, and the rest goes on.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from narpost.backoff import Backoff
from narpost.cache.binary_cache import BinaryCache
from narpost.errors import (
    CacheRefused,
    CacheUnreachable,
    NarpostError,
    PathVanished,
    Permanent,
    StoreUnreachable,
)
from narpost.events import Emit, Planned, Posted, Troubled
from narpost.nix.narinfo import NarInfo
from narpost.nix.path_info import PathInfo
from narpost.nix.signing import PublicKey
from narpost.nix.store_path import StorePath
from narpost.push.pack import Packer
from narpost.push.plan import plan
from narpost.push.publish import Publisher
from narpost.push.seen import Seen
from narpost.queue.queue import Queue
from narpost.store.store import Store

# Large, since presence of many is asked for at once more cheaply.
BATCH = 10_000
IN_HAND = 20_000


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What changes from one run to another: time, chance, listeners."""

    clock: Callable[[], float]
    random: Callable[[], float]
    emit: Emit
    backoff: Backoff


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
        publisher_of: Callable[[Callable[[NarInfo], None]], Publisher],
        upstream_keys: Sequence[PublicKey],
        around: Surroundings,
    ) -> None:
        self.name = name
        self.trouble: NarpostError | None = None
        self._queue = queue
        self._store = store
        self._cache = cache
        self._packer = packer
        self._publisher = publisher_of(self._visible)
        self._upstream_keys = tuple(upstream_keys)
        self._around = around
        self._seen = seen
        self._in_hand = 0
        self._plans: set[asyncio.Task[None]] = set()
        self._asking = ThreadPoolExecutor(1, "ask-store")
        self._work = asyncio.Event()

    def wake(self) -> None:
        """There may be new work."""
        self._work.set()

    async def run(self, tries_limit: int | None = None) -> None:
        """Post what is due, for ever; ends by cancellation, with what is in hand left running.

        A cache that cannot be opened after *tries_limit* tries ends it with that error.
        """
        await self._open(tries_limit)
        while True:
            self._work.clear()
            self._take()
            await self._until_due()

    async def finish(self) -> None:
        """Let what was begun come to its end, and the rest be: it stays queued."""
        for task in self._plans:
            task.cancel()
        self._publisher.stop()
        await self._publisher.finished()

    def close(self) -> None:
        """Let the threads end."""
        self._packer.close()
        self._asking.shutdown()

    async def _open(self, tries_limit: int | None) -> None:
        tries = 0
        while True:
            try:
                if await self._cache.open():
                    self._seen.forget()
            except (CacheUnreachable, CacheRefused) as error:
                tries += 1
                self.trouble = error
                if tries == tries_limit:
                    raise
                self._around.emit(Troubled(f"open {self._cache.name}", error.message))
                delay = self._around.backoff.delay(tries, self._around.random)
                await asyncio.sleep(delay)
            else:
                self.trouble = None
                return

    def _take(self) -> None:
        while self._in_hand < IN_HAND:
            batch = self._queue.claim(self.name, BATCH)
            if not batch:
                return
            self._in_hand += len(batch)
            task = asyncio.create_task(self._post(batch))
            self._plans.add(task)
            task.add_done_callback(self._plans.discard)

    async def _until_due(self) -> None:
        due_at = self._queue.next_due_at(self.name)
        delay = None if due_at is None else max(0.0, due_at - self._around.clock())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay):
                await self._work.wait()

    async def _post(self, batch: Sequence[StorePath]) -> None:
        """Post the closures of *batch*; each entry then has its own verdict."""
        try:
            loop = asyncio.get_running_loop()
            closure = await loop.run_in_executor(self._asking, self._store.closure, batch)
            present = await self._present(closure)
            decided = plan(closure, present)
        except Exception as error:  # The edge: whatever it is, the entries stay.
            for path in batch:
                self._ended(path, error)
            return
        nar_bytes = sum(step.info.nar_bytes for step in decided.steps)
        self._around.emit(Planned(self.name, len(decided.steps), nar_bytes))
        whole = [path for path in batch if path in closure and path not in decided.lacking]
        self._publisher.post(decided, whole, self._ended)
        for path in batch:
            lost = path if path not in closure else decided.lacking.get(path)
            if lost is not None:
                self._ended(path, _vanished(path, lost))

    async def _present(self, closure: Mapping[StorePath, PathInfo]) -> set[StorePath]:
        """What of *closure* is not ours to post: upstream has it, or the cache."""
        upstream = {path for path, info in closure.items() if self._is_upstream(info)}
        self._seen.forget_old()
        unknown = closure.keys() - upstream - self._seen.among(closure)
        self._seen.add(await self._cache.present(unknown))
        # What became visible while we asked counts too.
        return upstream | self._seen.among(closure)

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
                self.trouble = None
        except Exception as failure:  # The edge: whatever it is, the entry stays.
            error = failure
        if error is not None:
            self._failed(path, error)

    def _failed(self, path: StorePath, error: Exception) -> None:
        if isinstance(error, Permanent):
            self._queue.set_aside(self.name, path, error)
            return
        if not isinstance(error, NarpostError):
            error = NarpostError(f"narpost itself failed: {type(error).__name__}: {error}")
        if isinstance(error, CacheUnreachable | CacheRefused | StoreUnreachable):
            self.trouble = error
        tries = self._queue.tries(self.name, path) + 1
        delay = self._around.backoff.delay(tries, self._around.random)
        self._queue.postpone(self.name, path, error, delay)

    def _visible(self, narinfo: NarInfo) -> None:
        info, file_bytes = narinfo.info, narinfo.file_bytes or 0
        self._seen.add([info.path])
        sizes = (info.nar_bytes, file_bytes)
        self._queue.ledger.post(info.path, self.name, sizes, self._around.clock())
        self._around.emit(Posted(self.name, info.path.base_name, info.nar_bytes, file_bytes))


def _vanished(path: StorePath, lost: StorePath) -> PathVanished:
    if lost == path:
        return PathVanished(f"{path} is no longer in the store")
    return PathVanished(f"{path} needs {lost}, which is no longer in the store")

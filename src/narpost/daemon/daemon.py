"""The process that posts what is queued: for ever, or until nothing is left to do."""

import asyncio
import contextlib
from asyncio import FIRST_COMPLETED
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from narpost.daemon.intake import Intake
from narpost.daemon.watch import changes
from narpost.errors import NarpostError, Passing
from narpost.events import Bus, Confirmed, Event, Posted, PutAside, Renewed, Retrying, Settled
from narpost.nix.store_path import StorePath
from narpost.push.worker import Worker
from narpost.queue.lock import DaemonLock
from narpost.queue.queue import Queue

SAVE_SECONDS = 0.02
# A drain gives up on an entry after so many tries; the entry stays queued.
DRAIN_TRIES = 4


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a drain left in the queue, with the reasons, and what ails a cache, if anything."""

    left: dict[StorePath, str]
    trouble: NarpostError | None


class Daemon:
    """Posts the entries of *queue* by *workers*; only one works on a queue at a time.

    *clear_others* clears away what belongs to none of *workers*.
    """

    def __init__(
        self,
        queue: Queue,
        intake: Intake,
        workers: Sequence[Worker],
        lock: DaemonLock,
        bus: Bus,
        clear_others: Callable[[], None],
    ) -> None:
        self._queue = queue
        self._intake = intake
        self._workers = tuple(workers)
        self._lock = lock
        self._clear_others = clear_others
        self._changed = asyncio.Event()
        self._dirty = asyncio.Event()
        bus.listen(self._notice)

    async def run(self, stop: asyncio.Event) -> None:
        """Post until *stop* is set; then let what is in hand come to its end."""
        async with self._at_work(self._save, self._watch) as running:
            stopping = asyncio.create_task(stop.wait())
            await asyncio.wait({stopping, *running}, return_when=FIRST_COMPLETED)
            stopping.cancel()
        _raise_lasting(running)

    async def drain(
        self, stop: asyncio.Event, only: Collection[StorePath] | None = None
    ) -> Outcome:
        """Post until nothing is left to do, or nothing of *only*, or *stop* is set.

        What is queued meanwhile is looked for at the end: to let go of a watch takes the kernel
        some 20 ms.
        """
        async with self._at_work(self._save, tries_limit=DRAIN_TRIES) as running:
            self._queue.hurry()
            for path in only or ():
                self._queue.retry(path)
            stopping = asyncio.create_task(stop.wait())
            while not stopping.done() and await self._finds_work(running, only):
                self._changed.clear()
                changed = asyncio.create_task(self._changed.wait())
                alive = [task for task in running if not task.done()]
                await asyncio.wait({changed, stopping, *alive}, return_when=FIRST_COMPLETED)
                changed.cancel()
            stopping.cancel()
        _raise_lasting(running)
        trouble = next((worker.trouble for worker in self._workers if worker.trouble), None)
        return Outcome(self._queue.left(only), trouble)

    @contextlib.asynccontextmanager
    async def _at_work(
        self, *chores: Callable[[], Coroutine[Any, Any, None]], tries_limit: int | None = None
    ) -> AsyncIterator[list[asyncio.Task[None]]]:
        """Workers and *chores* run while the context lasts; then what is in hand ends.

        None of them ends by itself but with an error.
        """
        self._lock.take()
        try:
            self._clear()
            await self._intake.look()
            works = [worker.run(tries_limit) for worker in self._workers]
            running = [*map(asyncio.create_task, (*works, *(chore() for chore in chores)))]
            try:
                yield running
            finally:
                await _cancel(running)
                await asyncio.gather(*(worker.finish() for worker in self._workers))
        finally:
            self._queue.close()
            for worker in self._workers:
                worker.close()
            self._lock.release()

    def _clear(self) -> None:
        """Only now, with the lock: what lies about is of somebody who has died."""
        self._queue.spool.clear()
        self._clear_others()
        for worker in self._workers:
            worker.clear()

    async def _finds_work(
        self, running: Sequence[asyncio.Task[None]], only: Collection[StorePath] | None
    ) -> bool:
        if self._has_work(running, only):
            return True
        await self._look()
        return self._has_work(running, only)

    def _has_work(
        self, running: Sequence[asyncio.Task[None]], only: Collection[StorePath] | None
    ) -> bool:
        """Whether a worker that still runs has something to do; one that ended has given up."""
        works, chores = running[: len(self._workers)], running[len(self._workers) :]
        caches = {
            worker.name
            for worker, task in zip(self._workers, works, strict=True)
            if not task.done()
        }
        return not _any_done(chores) and self._queue.has_work(DRAIN_TRIES, only, caches)

    async def _watch(self) -> None:
        while True:
            # Somebody may have deleted it; the hook needs it as much as we do.
            self._queue.spool.make()
            async for _ in changes(self._queue.spool.folder):
                await self._look()

    async def _look(self) -> None:
        await self._intake.look()
        for worker in self._workers:
            worker.wake()
        self._changed.set()

    async def _save(self) -> None:
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            self._queue.save()
            await asyncio.sleep(SAVE_SECONDS)

    def _notice(self, event: Event) -> None:
        self._dirty.set()
        if isinstance(event, Renewed):
            for worker in self._workers:
                worker.hurry()
        if isinstance(event, Confirmed | Posted | Retrying | PutAside | Settled):
            self._changed.set()


async def _cancel(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _any_done(tasks: Sequence[asyncio.Task[Any]]) -> bool:
    return any(task.done() for task in tasks)


def _raise_lasting(running: Sequence[asyncio.Task[None]]) -> None:
    """A task that ended by itself met what no further try mends."""
    for task in running:
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, Passing):
            raise error

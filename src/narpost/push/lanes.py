"""Lanes: a few tasks that work off what is put in, a batch at a time."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Lanes(Generic[Item]):
    """Up to *count* tasks, each taking batches by *take* to *work* until nothing is left.

    So *count* and the size of a batch bound what is under way, and one slow batch leaves the
    other lanes free. *work* handles its own errors.
    """

    def __init__(
        self,
        count: int,
        take: Callable[[deque[Item]], list[Item]],
        work: Callable[[list[Item]], Awaitable[None]],
    ) -> None:
        self._count = count
        self._take = take
        self._work = work
        self._waiting: deque[Item] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._at_work = 0

    def put(self, item: Item) -> None:
        """Have *item* worked off."""
        self._waiting.append(item)
        # Not by the tasks: one that has found nothing more to do is among them for a while.
        if self._at_work < self._count:
            self._at_work += 1
            task = asyncio.create_task(self._run())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def stop(self) -> list[Item]:
        """Let go of what no lane has taken yet, and give it back."""
        waiting = list(self._waiting)
        self._waiting.clear()
        return waiting

    async def finished(self) -> None:
        """Returns when no lane works any more."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _run(self) -> None:
        try:
            while self._waiting:
                await self._work(self._take(self._waiting))
        finally:
            self._at_work -= 1


def up_to(limit: int) -> Callable[[deque[Item]], list[Item]]:
    """Takes batches of *limit* items."""

    def take(waiting: deque[Item]) -> list[Item]:
        return [waiting.popleft() for _ in range(min(limit, len(waiting)))]

    return take

"""Room on the disk for packed files: a bound on them all together."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Room:
    """*limit_bytes* in all; one that is larger than that gets in when it is alone."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._taken_bytes = 0
        self._freed = asyncio.Condition()

    @asynccontextmanager
    async def of(self, size: int) -> AsyncIterator[None]:
        """Waits until there is room for *size* bytes, and holds it while the context lasts."""
        async with self._freed:
            await self._freed.wait_for(lambda: self._fits(size))
            self._taken_bytes += size
        try:
            yield
        finally:
            async with self._freed:
                self._taken_bytes -= size
                self._freed.notify_all()

    def _fits(self, size: int) -> bool:
        return not self._taken_bytes or self._taken_bytes + size <= self._limit_bytes

"""A bucket in memory that keeps the promise of `Bucket`, can be down, and can stop for ever."""

import asyncio
import random
from collections.abc import Callable, Coroutine, Iterable, Mapping
from enum import Enum, auto
from pathlib import Path
from typing import Any, TypeVar

from narpost.errors import CacheUnreachable

T = TypeVar("T")


class Fault(Enum):
    """What befalls a put."""

    # Nothing is stored, and no call ever ends.
    POWER_FAILS = auto()
    # It is stored, and the caller is told of a failure.
    LOSES_ANSWER = auto()
    # Half of a NAR is stored, and the caller is told that all was well.
    CUTS_SHORT = auto()


class MemoryBucket:
    """*objects* are by key; *on_put* hears of each, just before it is there.

    Each call takes a number of turns of the loop that *seed* decides, so that calls which nothing
    holds back overtake each other. While *is_down*, every call fails. *faults* say what befalls
    the puts of these numbers; when the power goes out, *stopped* is set.
    """

    name = "memory"

    def __init__(
        self,
        objects: dict[str, bytes],
        on_put: Callable[[str, bytes], None],
        *,
        seed: int = 0,
        is_down: bool = False,
        faults: Mapping[int, Fault] | None = None,
    ) -> None:
        self.objects = objects
        self.stopped = asyncio.Event()
        self._on_put = on_put
        self._is_down = is_down
        self._faults = faults or {}
        self._turns = random.Random(seed)
        self._puts = 0

    async def each(self, calls: Iterable[Coroutine[Any, Any, T]]) -> list[T | Exception]:
        """Make several *calls* at once; each has its own result or error."""
        results = await asyncio.gather(*calls, return_exceptions=True)
        return [_no_end(result) for result in results]

    async def probe(self) -> None:
        """Nothing is to be learnt."""
        await self._answer()

    async def size(self, key: str) -> int | None:
        """The object's size in bytes; nothing when it is not there."""
        await self._answer()
        return len(self.objects[key]) if key in self.objects else None

    async def names(self, pages: int) -> set[str] | None:
        """Nothing: one name after another can be asked for."""
        return None

    async def get(self, key: str) -> bytes | None:
        """An object's bytes; nothing when it is not there."""
        await self._answer()
        return self.objects.get(key)

    async def put(self, key: str, body: bytes | Path, content_type: str) -> bool:
        """Store an object, in place of any that is there; no answer proves that it arrived."""
        fault = await self._begin()
        self._store(key, body if isinstance(body, bytes) else _read(body), fault)
        self._end(fault)
        return False

    async def put_new(self, key: str, body: bytes, content_type: str) -> bool:
        """Store an object unless one is there, which is told by False."""
        fault = await self._begin()
        is_new = key not in self.objects
        if is_new:
            self._store(key, body, fault)
        self._end(fault)
        return is_new

    async def end_uploads(self, keys: Iterable[str]) -> None:
        """There are none in parts."""

    def _store(self, key: str, data: bytes, fault: Fault | None) -> None:
        self._on_put(key, data)
        self.objects[key] = (
            data[: len(data) // 2] if fault is Fault.CUTS_SHORT and "/" in key else data
        )

    async def _answer(self) -> None:
        for _ in range(self._turns.randrange(20)):
            await asyncio.sleep(0)
        if self.stopped.is_set():
            await asyncio.get_running_loop().create_future()
        if self._is_down:
            raise CacheUnreachable("503 Slow Down")

    async def _begin(self) -> Fault | None:
        fault = self._faults.get(self._puts)
        self._puts += 1
        if fault is Fault.POWER_FAILS:
            self.stopped.set()
        await self._answer()
        return fault

    def _end(self, fault: Fault | None) -> None:
        if fault is Fault.LOSES_ANSWER:
            raise CacheUnreachable("the connection was reset")


def _read(file: Path) -> bytes:
    return file.read_bytes()


def _no_end(result: T | BaseException) -> T | Exception:
    if isinstance(result, BaseException) and not isinstance(result, Exception):
        raise result
    return result

"""A bucket in memory that remembers when each write began and when it was done."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from obstore.store import MemoryStore

from narpost.cache.bucket import Put
from narpost.cache.object_store import ObjectBucket
from narpost.errors import CacheUnreachable


@dataclass(frozen=True, slots=True)
class Write:
    """One object was written: *before* holds the keys that were there when that began."""

    key: str
    before: frozenset[str]


class RecordingBucket(ObjectBucket):
    """Keeps the promise of `Bucket`; *writes* are in the order in which they were done.

    Each takes a number of turns of the loop that *seed* decides, so that writes which nothing
    holds back overtake each other. *refused_key* is never written.
    """

    def __init__(self, seed: int = 0, refused_key: str = "") -> None:
        super().__init__(MemoryStore(), "memory://")
        self.writes: list[Write] = []
        self._chance = random.Random(seed)
        self._refused_key = refused_key

    async def put(self, key: str, body: bytes | Path, content_type: str) -> Put:
        """Store an object, in place of any that is there."""
        async with self._recorded(key):
            return await super().put(key, body, content_type)

    async def put_new(self, key: str, body: bytes, content_type: str) -> Put:
        """Store an object unless one is there."""
        async with self._recorded(key):
            return await super().put_new(key, body, content_type)

    @asynccontextmanager
    async def _recorded(self, key: str) -> AsyncIterator[None]:
        write = Write(key, frozenset(each.key for each in self.writes))
        for _ in range(self._chance.randrange(50)):
            await asyncio.sleep(0)
        if key == self._refused_key:
            raise CacheUnreachable(f"cannot write {key}")
        yield
        self.writes.append(write)

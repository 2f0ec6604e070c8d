"""A binary cache in a bucket: what it has, and how a path gets into it.

A narinfo is a promise that its NAR and its whole closure are there, so whoever publishes writes
NARs first, reads them back, and writes narinfos last, references before referrers.
"""

import asyncio
from collections.abc import Iterable
from pathlib import Path

from narpost.cache.bucket import Bucket
from narpost.errors import CacheUnreachable, MalformedError, UsageError
from narpost.nix.cache_info import CacheInfo
from narpost.nix.cache_names import CACHE_INFO, CACHE_INFO_TYPE, NAR_TYPE, NARINFO_TYPE, narinfo_key
from narpost.nix.narinfo import NarInfo
from narpost.nix.store_path import StorePath

REQUESTS_AT_ONCE = 64


class BinaryCache:
    """The cache *info* describes, in *bucket*.

    Each call may be repeated; each raises `CacheUnreachable` or `CacheRefused` when the bucket
    does.
    """

    def __init__(self, bucket: Bucket, info: CacheInfo) -> None:
        self.info = info
        self._bucket = bucket
        self._requests = asyncio.Semaphore(REQUESTS_AT_ONCE)

    @property
    def name(self) -> str:
        """The URL without its parameters, for messages."""
        return self._bucket.name

    async def open(self) -> None:
        """See that the bucket is there and for our store; describe the cache if it is new."""
        await self._bucket.probe()
        text = await self._bucket.get(CACHE_INFO)
        if text is None:
            await self._bucket.put_new(CACHE_INFO, self.info.render().encode(), CACHE_INFO_TYPE)
            return
        try:
            there = CacheInfo.parse(text.decode(errors="replace")).store_dir
        except MalformedError as error:
            raise UsageError(
                f"{self.name} has a {CACHE_INFO} that cannot be read: {error}",
                f"mend that file, or choose another cache; it should say {self.info.render()!r}",
            ) from error
        if there != self.info.store_dir:
            raise UsageError(
                f"{self.name} is a cache for the store {there.folder}, "
                f"and this machine's store is {self.info.store_dir.folder}",
                "choose another cache for this store",
            )

    async def present(self, paths: Iterable[StorePath]) -> set[StorePath]:
        """Those of *paths* whose narinfo is there."""
        asked = list(paths)
        found = await asyncio.gather(*map(self._has, asked))
        return {path for path, is_there in zip(asked, found, strict=True) if is_there}

    async def put_nar(self, key: str, body: bytes | Path, size: int) -> None:
        """Store a NAR of *size* compressed bytes under its hash, and see that it arrived.

        One that is there already has the same name, and so the same bytes, unless somebody's
        upload was cut off: then it is replaced.
        """
        async with self._requests:
            if isinstance(body, bytes):
                await self._bucket.put_new(key, body, NAR_TYPE)
            elif await self._bucket.size(key) != size:
                await self._bucket.put(key, body, NAR_TYPE)
            if await self._bucket.size(key) == size:
                return
            await self._bucket.put(key, body, NAR_TYPE)
            if await self._bucket.size(key) != size:
                raise CacheUnreachable(f"{self.name} took {key}, and does not give it back whole")

    async def put_narinfo(self, narinfo: NarInfo) -> None:
        """Make a path visible; everything that it promises must be there already."""
        text = narinfo.render(self.info.store_dir)
        async with self._requests:
            await self._bucket.put(narinfo_key(narinfo.info.path), text.encode(), NARINFO_TYPE)

    async def _has(self, path: StorePath) -> bool:
        async with self._requests:
            return await self._bucket.size(narinfo_key(path)) is not None

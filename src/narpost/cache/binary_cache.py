"""A binary cache in a bucket: what it has, and how a path gets into it.

A narinfo is a promise that its NAR and its whole closure are there, so whoever publishes writes
NARs first, sees that they arrived, and writes narinfos last, references before referrers.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from narpost.cache.bucket import Bucket, Put
from narpost.errors import CacheUnreachable, MalformedError, UsageError
from narpost.nix.cache_info import CacheInfo
from narpost.nix.cache_names import (
    CACHE_INFO,
    CACHE_INFO_TYPE,
    NAR_FOLDER,
    NAR_TYPE,
    NARINFO_TYPE,
    narinfo_key,
)
from narpost.nix.narinfo import NarInfo
from narpost.nix.store_path import StorePath

ASKED_AT_ONCE = 192
ASKED_PER_PAGE = 256


@dataclass(frozen=True, slots=True)
class Nar:
    """A compressed NAR of *size* bytes, to be stored as *key*."""

    key: str
    body: bytes | Path
    size: int


class BinaryCache:
    """The cache *info* describes, in *bucket*.

    Each call may be repeated; each raises `CacheUnreachable` or `CacheRefused` when the bucket
    does.
    """

    def __init__(self, bucket: Bucket, info: CacheInfo) -> None:
        self.info = info
        self._bucket = bucket
        self._is_vast = False

    @property
    def name(self) -> str:
        """The URL without its parameters, for messages."""
        return self._bucket.name

    async def open(self) -> bool:
        """See that the bucket is there and for our store.

        A new cache is described, which is told by True.
        """
        await self._bucket.probe()
        text = await self._bucket.get(CACHE_INFO)
        if text is None:
            description = self.info.render().encode()
            put = await self._bucket.put_new(CACHE_INFO, description, CACHE_INFO_TYPE)
            return put is not Put.EXISTS
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
        return False

    async def present(
        self, paths: Iterable[StorePath]
    ) -> tuple[set[StorePath], dict[StorePath, Exception]]:
        """Those of *paths* whose narinfo is there, and those for which that cannot be said."""
        asked = {narinfo_key(path): path for path in paths}
        # A page costs about as much as some tens of questions, and pages come one by one.
        pages = len(asked) // ASKED_PER_PAGE
        names = await self._bucket.names(pages) if pages and not self._is_vast else None
        if names is not None:
            return {asked[key] for key in asked.keys() & names}, {}
        self._is_vast = self._is_vast or pages > 0
        return await self._ask(asked)

    async def _ask(
        self, asked: Mapping[str, StorePath]
    ) -> tuple[set[StorePath], dict[StorePath, Exception]]:
        keys = list(asked)
        present: set[StorePath] = set()
        unknown: dict[StorePath, Exception] = {}
        for start in range(0, len(keys), ASKED_AT_ONCE):
            some = keys[start : start + ASKED_AT_ONCE]
            sizes = await self._bucket.each(map(self._bucket.size, some))
            for key, size in zip(some, sizes, strict=True):
                if isinstance(size, Exception):
                    unknown[asked[key]] = size
                elif size is not None:
                    present.add(asked[key])
            if all(isinstance(size, Exception) for size in sizes):
                # It is the cache, and no key: the rest need not be asked for.
                rest = (asked[key] for key in keys[start:])
                return present, dict.fromkeys(rest, unknown[asked[some[0]]]) | unknown
        return present, unknown

    async def end_uploads(self, names: Iterable[str]) -> None:
        """End uploads of NARs that were cut off; *names* are `<FileHash>.nar.zst`."""
        await self._bucket.end_uploads(f"{NAR_FOLDER}/{name}" for name in names)

    async def put_nars(self, nars: Sequence[Nar]) -> list[Exception | None]:
        """Store each of *nars* and see that it arrived; each has its own result."""
        return await self._bucket.each(map(self._put_nar, nars))

    async def put_narinfos(self, narinfos: Sequence[NarInfo]) -> list[Exception | None]:
        """Make paths visible, each of which has its own result.

        All that they promise must be there already.
        """
        return await self._bucket.each(map(self._put_narinfo, narinfos))

    async def _put_nar(self, nar: Nar) -> None:
        """Store it under its hash, and see that it arrived: by the answer, or by reading it back.

        One that is there already has the same name, and so the same bytes, unless somebody's
        upload was cut off: then it is replaced.
        """
        if isinstance(nar.body, bytes):
            if await self._bucket.put_new(nar.key, nar.body, NAR_TYPE) is Put.PROVEN:
                return
        elif await self._bucket.size(nar.key) != nar.size:
            await self._bucket.put(nar.key, nar.body, NAR_TYPE)
        if await self._bucket.size(nar.key) == nar.size:
            return
        await self._bucket.put(nar.key, nar.body, NAR_TYPE)
        if await self._bucket.size(nar.key) != nar.size:
            raise self._not_given_back(nar.key)

    async def _put_narinfo(self, narinfo: NarInfo) -> None:
        key = narinfo_key(narinfo.info.path)
        text = narinfo.render(self.info.store_dir).encode()
        if await self._bucket.put(key, text, NARINFO_TYPE) is Put.PROVEN:
            return
        if await self._bucket.size(key) != len(text):
            raise self._not_given_back(key)

    def _not_given_back(self, key: str) -> CacheUnreachable:
        return CacheUnreachable(f"{self.name} took {key}, and does not give it back whole")

"""The promise of Bucket, kept by a folder, by memory, and by a real S3 server."""

import asyncio
import os
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import obstore
import pytest
from obstore.store import MemoryStore

from narpost.cache.bucket import Bucket, Put
from narpost.cache.object_store import ObjectBucket
from narpost.errors import CacheUnreachable, NarpostError
from narpost.nix.store_url import StoreUrl
from narpost.wiring import open_bucket
from support.s3 import S3Bucket, credentials

T = TypeVar("T")

TYPE = "application/x-nix-nar"
# More than one part of an upload in parts.
LARGE_BYTES = (21 << 20) + 7
ODD_KEYS = [
    "log/1bh6mb2v5qx0zwjxv4qz5ns3dlpwx4sb-gtk+3.24.drv",
    "log/2bh6mb2v5qx0zwjxv4qz5ns3dlpwx4sb-what?.drv",
    "log/3bh6mb2v5qx0zwjxv4qz5ns3dlpwx4sb-a=b&c=d.drv",
    "log/4bh6mb2v5qx0zwjxv4qz5ns3dlpwx4sb-source?rev=1+2.drv",
    "log/5bh6mb2v5qx0zwjxv4qz5ns3dlpwx4sb-_-..--.drv",
    "realisations/sha256:0f0a!out.doi",
    "debuginfo/0123456789abcdef.debug",
]


@dataclass(frozen=True, slots=True)
class Body:
    """A bucket, and what is to be seen of it from outside."""

    bucket: Bucket
    keys: Callable[[], set[str]]
    content_type: Callable[[str], str | None]


@pytest.fixture(params=["folder", "memory", "s3"])
def body(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Body:
    """An empty bucket of each kind."""
    match request.param:
        case "folder":
            return folder_body(tmp_path / "cache")
        case "memory":
            return memory_body()
        case _:
            s3_bucket: S3Bucket = request.getfixturevalue("s3_bucket")
            for name, value in credentials(s3_bucket.server).items():
                monkeypatch.setenv(name, value)
            return Body(open_bucket(s3_bucket.url()), s3_bucket.keys, s3_bucket.content_type)


def folder_body(folder: Path) -> Body:
    """A folder; the names of its files are seen, and types it does not keep."""

    def keys() -> set[str]:
        files = (each for each in folder.rglob("*") if each.is_file())
        return {str(file.relative_to(folder)) for file in files}

    return Body(open_bucket(StoreUrl.parse(f"file://{folder}")), keys, lambda _key: None)


def memory_body() -> Body:
    """The object-store library's own store in memory."""
    store = MemoryStore()

    def keys() -> set[str]:
        return {each["path"] for page in obstore.list(store) for each in page}

    def content_type(key: str) -> str | None:
        return obstore.get(store, key).attributes.get("Content-Type")

    return Body(ObjectBucket(store, "memory"), keys, content_type)


def large_file(folder: Path) -> Path:
    """A file that no compressor and no luck makes small."""
    file = folder / "large"
    file.write_bytes(os.urandom(LARGE_BYTES))
    return file


def at_once(call: Callable[[bytes], Coroutine[Any, Any, T]], each: Sequence[bytes]) -> list[T]:
    """Call for each at the same time, as machines do that know nothing of each other."""
    with ThreadPoolExecutor(len(each)) as threads:
        return list(threads.map(lambda one: asyncio.run(call(one)), each))


def test_gives_back_what_was_put(body: Body) -> None:
    """An object's bytes and its size are those that were stored."""
    asyncio.run(body.bucket.put("nar/a.nar.zst", b"some bytes", TYPE))

    assert asyncio.run(body.bucket.get("nar/a.nar.zst")) == b"some bytes"
    assert asyncio.run(body.bucket.size("nar/a.nar.zst")) == 10
    assert body.keys() == {"nar/a.nar.zst"}


def test_an_absence_is_nothing(body: Body) -> None:
    """What was never put has neither bytes nor size, and asking is no error."""
    asyncio.run(body.bucket.put("nar/here", b"here", TYPE))

    assert asyncio.run(body.bucket.get("nar/missing")) is None
    assert asyncio.run(body.bucket.size("nar/missing")) is None
    assert asyncio.run(body.bucket.size("nar")) is None


def test_the_probe_passes_and_leaves_nothing(body: Body) -> None:
    """A bucket that is in order is not changed by the first look at it."""
    asyncio.run(body.bucket.probe())

    assert body.keys() == set()


def test_keeps_an_empty_object(body: Body) -> None:
    """No bytes are something else than no object."""
    asyncio.run(body.bucket.put("empty", b"", TYPE))

    assert asyncio.run(body.bucket.get("empty")) == b""
    assert asyncio.run(body.bucket.size("empty")) == 0


def test_put_replaces_what_is_there(body: Body) -> None:
    """The last put counts, whole, also where the object before it was longer."""
    asyncio.run(body.bucket.put("key", b"what was there before", TYPE))

    asyncio.run(body.bucket.put("key", b"new", TYPE))

    assert asyncio.run(body.bucket.get("key")) == b"new"
    assert asyncio.run(body.bucket.size("key")) == 3


def test_put_new_stores_what_is_missing(body: Body) -> None:
    """Where nothing is there, a conditional put is a put."""
    put = asyncio.run(body.bucket.put_new("key", b"first", TYPE))

    assert put is not Put.EXISTS
    assert asyncio.run(body.bucket.get("key")) == b"first"


def test_put_new_leaves_what_is_there(body: Body) -> None:
    """Where something is there it stays, and the caller is told so."""
    asyncio.run(body.bucket.put("key", b"first", TYPE))

    put = asyncio.run(body.bucket.put_new("key", b"second", TYPE))

    assert put is Put.EXISTS
    assert asyncio.run(body.bucket.get("key")) == b"first"


def test_one_of_many_wins_a_race(body: Body) -> None:
    """Of sixteen who put one new key at once, one is told that it did, and its object stays."""
    rivals = [bytes([number]) * 50_000 for number in range(16)]

    puts = at_once(lambda each: body.bucket.put_new("key", each, TYPE), rivals)

    (winner,) = (number for number, put in enumerate(puts) if put is not Put.EXISTS)
    assert asyncio.run(body.bucket.get("key")) == rivals[winner]
    assert body.keys() == {"key"}


def test_many_who_replace_leave_one_whole_object(body: Body) -> None:
    """Of sixteen puts of one key at once, none mixes with another."""
    rivals = [bytes([number]) * (50_000 + number) for number in range(16)]

    at_once(lambda each: body.bucket.put("key", each, TYPE), rivals)

    assert asyncio.run(body.bucket.get("key")) in rivals
    assert body.keys() == {"key"}


def test_takes_a_large_file(body: Body, tmp_path: Path) -> None:
    """A file of several parts arrives byte for byte."""
    file = large_file(tmp_path)

    asyncio.run(body.bucket.put("nar/large", file, TYPE))

    assert asyncio.run(body.bucket.size("nar/large")) == LARGE_BYTES
    assert asyncio.run(body.bucket.get("nar/large")) == file.read_bytes()
    assert body.keys() == {"nar/large"}


def test_takes_an_empty_file(body: Body, tmp_path: Path) -> None:
    """A file without bytes has no parts, and is stored all the same."""
    file = tmp_path / "empty"
    file.touch()

    asyncio.run(body.bucket.put("empty", file, TYPE))

    assert asyncio.run(body.bucket.get("empty")) == b""


def test_a_reader_sees_all_of_an_object_or_nothing(body: Body, tmp_path: Path) -> None:
    """Whoever reads while a large file is being put gets all of it, or hears that it is absent."""
    file = large_file(tmp_path)

    seen = {asyncio.run(body.bucket.size("nar/large"))}
    with ThreadPoolExecutor(1) as other:
        putting = other.submit(lambda: asyncio.run(body.bucket.put("nar/large", file, TYPE)))
        while not putting.done():
            seen.add(asyncio.run(body.bucket.size("nar/large")))
    putting.result()
    seen.add(asyncio.run(body.bucket.size("nar/large")))

    assert seen == {None, LARGE_BYTES}


def test_a_put_that_was_cut_off_leaves_all_or_nothing(body: Body, tmp_path: Path) -> None:
    """A put that is cancelled while it runs is no half object, and can be repeated."""
    file = large_file(tmp_path)

    async def cut_off() -> None:
        putting = asyncio.create_task(body.bucket.put("nar/large", file, TYPE))
        await body.bucket.size("nar/large")
        putting.cancel()
        await asyncio.gather(putting, return_exceptions=True)

    asyncio.run(cut_off())
    size_after = asyncio.run(body.bucket.size("nar/large"))
    asyncio.run(body.bucket.put("nar/large", file, TYPE))

    assert size_after in {None, LARGE_BYTES}
    assert asyncio.run(body.bucket.get("nar/large")) == file.read_bytes()


@pytest.mark.parametrize("key", ODD_KEYS)
def test_keeps_odd_names(body: Body, key: str) -> None:
    """Whatever a derivation may be named, its log has that very name for everybody."""
    asyncio.run(body.bucket.put(key, b"log", TYPE))

    assert asyncio.run(body.bucket.get(key)) == b"log"
    assert asyncio.run(body.bucket.size(key)) == 3
    assert asyncio.run(body.bucket.put_new(key, b"other", TYPE)) is Put.EXISTS
    assert body.keys() == {key}


def test_tells_the_names_outside_of_folders_or_nothing(body: Body) -> None:
    """Where they are told they are all of them, whatever lies in folders before and between."""
    top = {"0.narinfo", "log.narinfo", "nar-1", "narinfo", "nix-cache-info", "zzz.narinfo"}
    for key in (*top, "log/a.drv", "log/b.drv", "nar/a.nar", "nar/deep/b.nar", "z/z"):
        asyncio.run(body.bucket.put(key, b"x", TYPE))

    names = asyncio.run(body.bucket.names(pages=100))

    assert names in (None, top)


def test_tells_no_names_where_they_do_not_fit(body: Body) -> None:
    """No page is room for nothing."""
    asyncio.run(body.bucket.put("a.narinfo", b"x", TYPE))

    assert asyncio.run(body.bucket.names(pages=0)) is None


def test_each_of_several_calls_has_its_own_result(body: Body) -> None:
    """One that fails leaves the others their answers, in their order."""
    asyncio.run(body.bucket.put("a", b"four", TYPE))

    async def fail() -> int | None:
        raise CacheUnreachable("as it happens")

    async def ask() -> list[int | Exception | None]:
        calls = [body.bucket.size("a"), fail(), body.bucket.size("missing")]
        return await body.bucket.each(calls)

    first, second, third = asyncio.run(ask())

    assert (first, third) == (4, None)
    assert isinstance(second, CacheUnreachable)


def test_keeps_the_content_type(body: Body, tmp_path: Path) -> None:
    """Where a server keeps types, each way of putting tells it the type."""
    asyncio.run(body.bucket.put("put", b"narinfo", "text/x-nix-narinfo"))
    asyncio.run(body.bucket.put_new("put-new", b"narinfo", "text/x-nix-narinfo"))
    asyncio.run(body.bucket.put("file", large_file(tmp_path), "text/x-nix-narinfo"))

    types = {body.content_type(key) for key in ("put", "put-new", "file")}

    assert types in ({"text/x-nix-narinfo"}, {None})


def test_a_file_that_went_away_is_not_blamed_on_the_bucket(body: Body, tmp_path: Path) -> None:
    """A packed file that somebody deleted is an error of ours, which tells of no missing bucket."""
    with pytest.raises(NarpostError) as caught:
        asyncio.run(body.bucket.put("nar/large", tmp_path / "went-away", TYPE))

    assert "does not exist" not in caught.value.message
    assert body.keys() == set()


def test_an_answer_that_proves_something_is_right(body: Body) -> None:
    """Where a bucket says that the very bytes arrived, they did; encrypted ones it cannot tell."""
    puts = [
        asyncio.run(body.bucket.put("put", b"some bytes", TYPE)),
        asyncio.run(body.bucket.put_new("put-new", b"some bytes", TYPE)),
    ]

    assert set(puts) <= {Put.PROVEN, Put.STORED}
    assert asyncio.run(body.bucket.get("put")) == b"some bytes"
    assert asyncio.run(body.bucket.get("put-new")) == b"some bytes"

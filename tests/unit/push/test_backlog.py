"""Under a long backlog, packing goes at the level that is configured for it."""

import asyncio
from pathlib import Path

import obstore
import pytest
from obstore.store import MemoryStore

from narpost.cache.binary_cache import BinaryCache
from narpost.cache.object_store import ObjectBucket
from narpost.errors import UsageError
from narpost.nix.cache_info import CacheInfo
from narpost.push import pack, publish
from narpost.push.compression import Compression
from narpost.push.pack import Packed, Packer
from narpost.push.plan import plan
from narpost.push.publish import Publisher
from narpost.push.shelf import Shelf
from support.fake_store import STORE_DIR, FakeStore, graph_of, path_info

INFO = path_info("library")
USUAL, HURRIED = Compression("zstd", 19), Compression("zstd", 1)


def packed(folder: Path, compression: Compression, *, is_large: bool) -> bytes:
    """What the path's NAR is at one level."""
    store, file = FakeStore(graph_of(INFO)), folder / "alone"
    if is_large:
        pack.pack_to_file(INFO, store, compression, file)
        return file.read_bytes()
    (result,) = pack.pack_in_memory([INFO], store, compression.start())
    assert isinstance(result, Packed) and isinstance(result.body, bytes)
    return result.body


def posted(folder: Path) -> bytes:
    """What a publisher makes of the path."""
    objects, store = MemoryStore(), FakeStore(graph_of(INFO))

    async def post() -> None:
        packer = Packer(store, USUAL, Shelf(folder, 1 << 30), HURRIED)
        cache = BinaryCache(ObjectBucket(objects, "memory"), CacheInfo(STORE_DIR))
        publisher = Publisher(cache, packer, USUAL, [], lambda _narinfo: None, lambda *_error: None)
        publisher.post(plan(graph_of(INFO), ()), [INFO.path], lambda _path, _error: None)
        await publisher.finished()
        packer.close()

    asyncio.run(post())
    (nar,) = (each["path"] for page in obstore.list(objects, prefix="nar/") for each in page)
    return bytes(obstore.get(objects, nar).bytes())


@pytest.mark.parametrize("large_from", [0, pack.IN_MEMORY_BYTES])
def test_a_backlog_lowers_the_level(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large_from: int
) -> None:
    """Whether in memory or through a file, with more waiting than the bound."""
    monkeypatch.setattr(publish, "IN_MEMORY_BYTES", large_from)
    monkeypatch.setattr(publish, "BACKLOG_BYTES", INFO.nar_bytes - 1)

    body = posted(tmp_path)

    assert body == packed(tmp_path, HURRIED, is_large=large_from == 0)
    assert body != packed(tmp_path, USUAL, is_large=large_from == 0)


@pytest.mark.parametrize("large_from", [0, pack.IN_MEMORY_BYTES])
def test_without_a_backlog_the_level_is_the_usual(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large_from: int
) -> None:
    """As much as the bound is no backlog yet."""
    monkeypatch.setattr(publish, "IN_MEMORY_BYTES", large_from)
    monkeypatch.setattr(publish, "BACKLOG_BYTES", INFO.nar_bytes)

    body = posted(tmp_path)

    assert body == packed(tmp_path, USUAL, is_large=large_from == 0)


def test_a_level_that_the_format_has_not_is_refused() -> None:
    """By its number, with those that there are."""
    with pytest.raises(UsageError, match="'99' is not a compression-level of zstd"):
        Compression("zstd").at("99")

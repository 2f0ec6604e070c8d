"""Packed files on the disk: whole, sound, the path's own, and no more than there is room for."""

import hashlib
import os
from pathlib import Path

import pytest

from narpost.nix.hashes import Hash
from narpost.nix.path_info import PathInfo
from narpost.push.compression import Compression
from narpost.push.pack import pack_to_shelf
from narpost.push.shelf import KEPT_SECONDS, Shelf
from support.fake_store import FakeStore, graph_of, path_info

LIBRARY, PROGRAM = path_info("library"), path_info("program")
ZSTD = Compression("zstd", 3)


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    """An empty shelf."""
    shelf = Shelf(tmp_path / "packed", limit_bytes=1000)
    shelf.prepare()
    return shelf


def put(shelf: Shelf, info: PathInfo, data: bytes = b"packed") -> Path:
    """Lay *data* on the shelf as the packed NAR of a path."""
    partial = shelf.begin()
    partial.write_bytes(data)
    return shelf.finish(partial, info, file_hash(data), ".zst")


def file_hash(data: bytes) -> Hash:
    """What a file of *data* is named by."""
    return Hash.sha256(hashlib.sha256(data).digest())


def test_finds_what_was_finished(shelf: Shelf) -> None:
    """By the path and its NAR, with the FileHash; and another shelf in the folder finds it too."""
    file = put(shelf, LIBRARY)

    again = Shelf(shelf.folder, 1000)
    again.prepare()
    again.clear()

    assert again.find(LIBRARY, ".zst") == (file, file_hash(b"packed"))
    assert again.names() == [f"{file_hash(b'packed').digits}.nar.zst"]


def test_finds_no_other(shelf: Shelf) -> None:
    """Neither another path's, nor one of another format, nor what the path was before."""
    put(shelf, LIBRARY)
    rebuilt = PathInfo(LIBRARY.path, PROGRAM.nar_hash, LIBRARY.nar_bytes, ())

    assert shelf.find(PROGRAM, ".zst") is None
    assert shelf.find(LIBRARY, ".xz") is None
    assert shelf.find(rebuilt, ".zst") is None


def test_what_is_not_sound_is_not_found(shelf: Shelf) -> None:
    """A file that a crash has cut short, whatever its name says, is thrown away."""
    file = put(shelf, LIBRARY)
    file.write_bytes(b"pack")

    assert shelf.find(LIBRARY, ".zst") is None
    assert not file.exists()


def test_what_is_not_whole_or_too_old_is_cleared_away(shelf: Shelf) -> None:
    """At the next start."""
    partial = shelf.begin()
    partial.write_bytes(b"half")
    old, young = put(shelf, LIBRARY), put(shelf, PROGRAM)
    long_ago = old.stat().st_mtime - KEPT_SECONDS - 60
    os.utime(old, (long_ago, long_ago))

    Shelf(shelf.folder, 1000).clear()

    assert list(shelf.folder.iterdir()) == [young]


def test_keeps_only_what_there_is_room_for(shelf: Shelf) -> None:
    """What would be too much is packed again another time."""
    first, second = put(shelf, LIBRARY, b"a" * 600), put(shelf, PROGRAM, b"b" * 600)

    shelf.keep(second)
    shelf.keep(first)

    assert first.exists()
    assert not second.exists()


def test_an_earlier_try_saves_the_packing(shelf: Shelf) -> None:
    """The store is not read again: its bytes could even be gone."""
    store = FakeStore(graph_of(LIBRARY))
    first = pack_to_shelf(LIBRARY, store, ZSTD, shelf)
    store.spoil(LIBRARY.path)

    second = pack_to_shelf(LIBRARY, store, ZSTD, shelf)

    assert second == first

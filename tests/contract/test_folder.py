"""What a folder promises beyond a bucket: nothing of ours lies about, and it is never made anew."""

import asyncio
import os
import tempfile
from pathlib import Path

import pytest

from narpost.cache.folder import INCOMING, LEFT_OVER_SECONDS, FolderBucket
from narpost.errors import CacheRefused, CacheUnreachable
from support.programs import require

TYPE = "application/x-nix-nar"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder."""
    folder = tmp_path / "cache"
    folder.mkdir()
    return folder


@pytest.fixture
def bucket(folder: Path) -> FolderBucket:
    """The bucket in it."""
    return FolderBucket(folder, "file://cache")


def incoming(folder: Path, name: str, age_seconds: float) -> Path:
    """A file that somebody was writing when they were killed."""
    file = folder / INCOMING / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"half of it")
    written_at = file.stat().st_mtime - age_seconds
    os.utime(file, (written_at, written_at))
    return file


def test_the_probe_clears_away_only_what_is_old(folder: Path, bucket: FolderBucket) -> None:
    """A file that was left long ago goes; one that another machine may be writing stays."""
    old = incoming(folder, "old", LEFT_OVER_SECONDS + 60)
    young = incoming(folder, "young", 0)

    asyncio.run(bucket.probe())

    assert not old.exists()
    assert young.exists()


def test_a_put_leaves_nothing_incoming(folder: Path, bucket: FolderBucket) -> None:
    """Whether it stored, replaced, or found the object there."""
    asyncio.run(bucket.put("nar/a", b"one", TYPE))
    asyncio.run(bucket.put("nar/a", b"two", TYPE))
    asyncio.run(bucket.put_new("nar/b", b"three", TYPE))
    asyncio.run(bucket.put_new("nar/b", b"four", TYPE))

    assert list((folder / INCOMING).iterdir()) == []


def test_a_folder_that_went_away_is_not_made_anew(folder: Path, bucket: FolderBucket) -> None:
    """It may be a disk that is not mounted; when it is back, so is the cache."""
    folder.rename(folder.with_name("elsewhere"))

    with pytest.raises(CacheRefused, match="does not exist"):
        asyncio.run(bucket.put("nar/a", b"one", TYPE))
    with pytest.raises(CacheRefused, match="does not exist"):
        asyncio.run(bucket.probe())
    is_made = folder.exists()
    folder.with_name("elsewhere").rename(folder)
    asyncio.run(bucket.put("nar/a", b"one", TYPE))

    assert not is_made
    assert asyncio.run(bucket.get("nar/a")) == b"one"


def test_takes_a_file_from_another_disk(bucket: FolderBucket, tmp_path: Path) -> None:
    """Where the file cannot be linked it is copied, and stays where it is."""
    is_same_disk = Path("/dev/shm").stat().st_dev == tmp_path.stat().st_dev
    require(["a second disk at /dev/shm"] if is_same_disk else [], "copying between disks")
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
        file.write(b"from elsewhere")
        file.flush()

        asyncio.run(bucket.put("nar/a", Path(file.name), TYPE))

        assert asyncio.run(bucket.get("nar/a")) == b"from elsewhere"
        assert Path(file.name).read_bytes() == b"from elsewhere"


def test_a_file_in_the_way_is_a_failure_and_no_absence(folder: Path, bucket: FolderBucket) -> None:
    """Where `nar` is no folder nothing can be put, and the message names what failed."""
    (folder / "nar").write_bytes(b"")

    with pytest.raises(CacheUnreachable, match="cannot write nar/a at file://cache"):
        asyncio.run(bucket.put("nar/a", b"one", TYPE))

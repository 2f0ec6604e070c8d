"""A bucket with a pace: what goes to a real server in small chunks arrives whole."""

import asyncio
import os
from pathlib import Path

import pytest

from narpost.cache.pace import Pace
from narpost.wiring import open_bucket
from support.s3 import S3Bucket, credentials

TYPE = "application/x-nix-nar"
# More than one part.
LARGE_BYTES = (21 << 20) + 7


@pytest.mark.parametrize("size", [0, 1, LARGE_BYTES])
def test_a_file_that_keeps_a_pace_arrives_whole(
    s3_bucket: S3Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """By a clock of the test's own, so that nobody waits; the time is what was bounded."""
    for name, value in credentials(s3_bucket.server).items():
        monkeypatch.setenv(name, value)
    file = tmp_path / "file"
    file.write_bytes(os.urandom(size))
    now = 0.0

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    bucket = open_bucket(s3_bucket.url(), Pace(None, 1 << 20, clock=lambda: now, sleep=sleep))
    asyncio.run(bucket.put("nar/file", file, TYPE))

    assert asyncio.run(bucket.get("nar/file")) == file.read_bytes()
    assert s3_bucket.begun_uploads() == []
    assert now >= (size >> 20) - 1

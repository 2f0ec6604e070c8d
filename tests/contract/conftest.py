"""What the contract suites share: a real S3 server, and a home where nobody has credentials."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support import radosgw
from support.programs import require
from support.radosgw import S3Server
from support.s3 import S3Bucket, hide_credentials


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """One server for all; each test makes buckets of its own on it."""
    require(radosgw.missing_programs(), "a real S3 server")
    with radosgw.running(tmp_path_factory.mktemp("radosgw")) as server:
        yield server


@pytest.fixture(autouse=True)
def aws_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home and environment; AWS's metadata service is never asked."""
    home = tmp_path / "aws-home"
    home.mkdir()
    hide_credentials(monkeypatch, home)
    return home


@pytest.fixture
def s3_bucket(s3_server: S3Server) -> S3Bucket:
    """A new bucket; nobody but its owner may use it."""
    return S3Bucket.create(s3_server)

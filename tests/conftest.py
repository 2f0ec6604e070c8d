"""What every suite may ask for."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support import private_store as private_stores
from support import radosgw
from support.machine import Machine
from support.private_store import PrivateStore
from support.programs import require
from support.radosgw import S3Server
from support.s3 import S3Bucket


@pytest.fixture
def private_store(tmp_path: Path) -> PrivateStore:
    """A real Nix of the test's own, in a store that is still empty."""
    require(private_stores.missing_programs(), "a private Nix store")
    return PrivateStore.create(tmp_path / "nix")


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """One server for all; each test makes buckets of its own on it."""
    require(radosgw.missing_programs(), "a real S3 server")
    with radosgw.running(tmp_path_factory.mktemp("radosgw")) as server:
        yield server


@pytest.fixture
def s3_bucket(s3_server: S3Server) -> S3Bucket:
    """A new bucket; nobody but its owner may use it."""
    return S3Bucket.create(s3_server)


@pytest.fixture
def machine(private_store: PrivateStore, tmp_path: Path) -> Machine:
    """A build machine with narpost on it; no daemon runs yet."""
    return Machine.set_up(private_store, tmp_path / "machine")

"""What every suite may ask for."""

from pathlib import Path

import pytest

from support import private_store as private_stores
from support.private_store import PrivateStore
from support.programs import require


@pytest.fixture
def private_store(tmp_path: Path) -> PrivateStore:
    """A real Nix of the test's own, in a store that is still empty."""
    require(private_stores.missing_programs(), "a private Nix store")
    return PrivateStore.create(tmp_path / "nix")

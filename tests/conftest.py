"""What every suite may ask for."""

import os
from pathlib import Path

import pytest

from support import private_store as private_stores
from support.private_store import PrivateStore


@pytest.fixture
def private_store(tmp_path: Path) -> PrivateStore:
    """A real Nix of the test's own, in a store that is still empty."""
    _require(private_stores.missing_programs(), "a private Nix store")
    return PrivateStore.create(tmp_path / "nix")


def _require(missing: list[str], what: str) -> None:
    """Skip the test, or fail it under NARPOST_NO_SKIP, if programs are *missing*."""
    if missing:
        reason = f"{what} needs programs that are not on this machine: {', '.join(missing)}"
        if os.environ.get("NARPOST_NO_SKIP"):
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)

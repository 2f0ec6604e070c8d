"""What the tests with faults may ask for."""

from pathlib import Path

import pytest

from support.machine import Machine
from support.private_store import PrivateStore


@pytest.fixture
def machine(private_store: PrivateStore, tmp_path: Path) -> Machine:
    """A build machine with narpost on it; no daemon runs yet."""
    return Machine.set_up(private_store, tmp_path / "machine")

"""What the contract suites share: a home where nobody has credentials."""

from pathlib import Path

import pytest

from support.s3 import hide_credentials


@pytest.fixture(autouse=True)
def aws_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home and environment; AWS's metadata service is never asked."""
    home = tmp_path / "aws-home"
    home.mkdir()
    hide_credentials(monkeypatch, home)
    return home

"""Programs that a test needs and this machine may lack."""

import os
from collections.abc import Sequence

import pytest


def require(missing: Sequence[str], what: str) -> None:
    """Skip the test, or fail it under NARPOST_NO_SKIP, if programs are *missing*."""
    if missing:
        reason = f"{what} needs what is not on this machine: {', '.join(missing)}"
        if os.environ.get("NARPOST_NO_SKIP"):
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)

"""How long the tests go on that try chance: `make soak` asks for many times as much."""

import os

VARIABLE = "NARPOST_SOAK"


def times(count: int) -> int:
    """*count*, or as many times that as is asked for."""
    return count * int(os.environ.get(VARIABLE, "1"))

"""How long to wait before the next try."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narpost.backoff import Backoff

chances = st.floats(0, 1, exclude_max=True)
tries = st.integers(1, 10**9)


def bound(backoff: Backoff, count: int) -> float:
    """The longest wait after *count* failures, for the worst of luck."""
    return backoff.delay(count, lambda: 1.0)


@pytest.mark.parametrize(
    ("count", "seconds"), [(1, 1), (2, 2), (3, 4), (9, 256), (10, 300), (11, 300), (10_000, 300)]
)
def test_the_bound_doubles_up_to_the_longest(count: int, seconds: float) -> None:
    """From one second on it doubles with each failure, until five minutes."""
    assert bound(Backoff(), count) == seconds


@given(tries, chances)
def test_a_delay_lies_anywhere_below_the_bound(count: int, chance: float) -> None:
    """Full jitter: chance alone says where, so that many who failed together come back apart."""
    backoff = Backoff(first_seconds=0.5, longest_seconds=60.0)

    delay = backoff.delay(count, lambda: chance)

    assert delay == chance * bound(backoff, count)
    assert 0 <= delay <= 60.0


@given(tries, tries)
def test_no_bound_is_shorter_than_one_before_it(count: int, more: int) -> None:
    """Who has failed more often never waits for less, but by chance."""
    assert bound(Backoff(), count) <= bound(Backoff(), count + more)

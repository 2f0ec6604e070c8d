"""Numbers and names as people read them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narpost.observe.words import duration, plain, size


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 B"),
        (1, "1 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (52 << 20, "52.0 MiB"),
        (4_400_000_000, "4.1 GiB"),
        (3 << 40, "3.0 TiB"),
        (2 << 50, "2.0 PiB"),
        (5 << 60, "5120.0 PiB"),
    ],
)
def test_a_size_has_the_largest_unit_that_fits(count: int, words: str) -> None:
    """Bytes are counted by 1024, and beyond the last unit the number grows."""
    assert size(count) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-3, "0 s"),
        (0, "0 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (3599, "59 min"),
        (3600, "1 h 0 min"),
        (7500, "2 h 5 min"),
        (86399, "23 h 59 min"),
        (86400, "1 d 0 h"),
        (90 * 86400 + 3600, "90 d 1 h"),
    ],
)
def test_a_duration_has_two_units_at_most(seconds: float, words: str) -> None:
    """What has begun counts as not yet over, and a clock set back as nothing."""
    assert duration(seconds) == words


@given(st.text())
def test_plain_text_obeys_nobody(text: str) -> None:
    """No escape, newline or other control is left, and nothing is cut off."""
    cleaned = plain(text)

    assert cleaned.isprintable()
    assert len(cleaned) == len(text)


@pytest.mark.parametrize("text", ["", "gtk+3.24 (out)", "über-日本"])
def test_plain_text_stays_as_it_is(text: str) -> None:
    """What can be printed is printed, in any language."""
    assert plain(text) == text


def test_an_escape_is_shown_as_a_mark() -> None:
    """A name that would colour the terminal shows where it tried."""
    assert plain("\x1b[31mred\nalert") == "�[31mred alert"

"""The log: a plain line for each event that a person would want to know of."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narpost.events import (
    Event,
    Ignored,
    Planned,
    Posted,
    PutAside,
    Queued,
    Retrying,
    Settled,
    Troubled,
)
from narpost.observe.logs import describe, log_to

foreign = st.text()
events = st.one_of(
    st.builds(Posted, st.just("main"), st.just("abc-hello"), st.integers(0), st.integers(0)),
    st.builds(Retrying, st.just("main"), st.just("abc-hello"), foreign, st.floats(0, 300)),
    st.builds(PutAside, st.just("main"), st.just("abc-hello"), foreign),
    st.builds(Ignored, foreign, foreign),
    st.builds(Troubled, foreign, foreign),
)


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (
            Posted("main", "abc-hello", 568, 2048),
            "posted abc-hello to main (568 B, 2.0 KiB compressed)",
        ),
        (
            Retrying("main", "abc-hello", "503 Slow Down", 3.6),
            "not posted yet: abc-hello to main: 503 Slow Down; next try in 4 s",
        ),
        (
            PutAside("main", "abc-hello", "it is corrupt"),
            "set aside: abc-hello for main: it is corrupt",
        ),
        (
            Ignored("notes.txt", "it is not a link"),
            "ignored in the queue folder: notes.txt: it is not a link",
        ),
        (Troubled("open s3://nix", "403"), "cannot open s3://nix: 403"),
    ],
)
def test_a_line_says_what_became_of_which_path(event: Event, line: str) -> None:
    """What failed says why, and what was posted says how large it is."""
    assert describe(event) == line


@pytest.mark.parametrize(
    "event", [Queued("abc-hello"), Settled("abc-hello"), Planned("main", 1, 2)]
)
def test_what_goes_without_saying_is_not_said(event: Event) -> None:
    """Steps on the way write no line."""
    lines: list[str] = []

    log_to(lines.append)(event)

    assert lines == []


def test_each_other_event_is_written_once() -> None:
    """The listener writes just the line that describes the event."""
    event = Troubled("take in what is queued", "permission denied")
    lines: list[str] = []

    log_to(lines.append)(event)

    assert lines == [describe(event)]


@given(events)
def test_an_event_is_one_line_that_a_terminal_obeys_nothing_of(event: Event) -> None:
    """What Nix, a server or a file's name says cannot break a line, or colour what follows."""
    assert describe(event).isprintable()

"""Waiting for entries that another process posts."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from narpost.nix.store_path import StorePath
from narpost.observe.waiting import Progress, Watch
from narpost.queue.ledger import Ledger, Standing
from narpost.queue.spool import Spool
from narpost.queue.states import State
from support.fake_store import STORE_DIR, store_path

HELLO, WORLD = store_path("hello"), store_path("world")
# After any link that a test makes.
LATER = 2.0**33
RETRIED = Standing(State.WAITING, tries=2, due_at=9.0, reason="503 Slow Down", kept_at=LATER)
ASIDE = Standing(State.SET_ASIDE, tries=1, reason="it is corrupt", kept_at=LATER)


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    """An empty queue folder."""
    spool = Spool(tmp_path, STORE_DIR)
    spool.prepare(tmp_path)
    return spool


def watch(spool: Spool, paths: Iterable[StorePath]) -> Watch:
    """A watch that reads the ledger beside the queue, as another process does."""
    return Watch(spool, lambda: Ledger(spool.directory, is_writer=False), paths)


def remember(spool: Spool, path: StorePath, standing: Standing) -> None:
    """Write how *path* stands, as the daemon does."""
    with Ledger(spool.directory) as ledger:
        ledger.remember(path, "main", standing)


def settle(spool: Spool, path: StorePath) -> None:
    """Let go of *path*, as the daemon does when every cache has it."""
    spool.remove(path)
    with Ledger(spool.directory) as ledger:
        ledger.settle(path, now=1.0)


def progress(
    posted: Iterable[StorePath] = (),
    waiting: Iterable[StorePath] = (),
    failed: dict[StorePath, str] | None = None,
    troubles: dict[StorePath, str] | None = None,
) -> Progress:
    """How far things are."""
    return Progress(frozenset(posted), frozenset(waiting), failed or {}, troubles or {})


def test_what_is_queued_waits(spool: Spool) -> None:
    """As long as its link is there, and nothing has failed."""
    spool.add([HELLO])

    assert watch(spool, [HELLO]).look() == progress(waiting=[HELLO])


def test_what_left_the_folder_is_posted(spool: Spool) -> None:
    """The link says it, before the ledger does."""
    spool.add([HELLO, WORLD])
    watching = watch(spool, [HELLO, WORLD])
    watching.look()

    spool.remove(HELLO)

    assert watching.look() == progress(posted=[HELLO], waiting=[WORLD])


def test_what_settled_before_the_first_look_is_posted(spool: Spool) -> None:
    """The ledger remembers it."""
    spool.add([HELLO])
    settle(spool, HELLO)

    assert watch(spool, [HELLO]).look() == progress(posted=[HELLO])


def test_what_was_never_queued_has_failed(spool: Spool) -> None:
    """That no link is there is no proof that anything was posted."""
    looked = watch(spool, [HELLO]).look()

    assert looked.posted == frozenset()
    assert looked.waiting == frozenset()
    assert "not queued" in looked.failed[HELLO]


def test_what_is_set_aside_has_failed(spool: Spool) -> None:
    """With the reason; nobody waits for it."""
    spool.add([HELLO, WORLD])
    remember(spool, HELLO, ASIDE)

    looked = watch(spool, [HELLO, WORLD]).look()

    assert looked == progress(waiting=[WORLD], failed={HELLO: "it is corrupt"})


def test_what_was_said_before_the_link_was_made_anew_counts_no_more(spool: Spool) -> None:
    """Somebody has mended it and queued it once more: it waits for the daemon to look."""
    spool.add([HELLO])
    remember(spool, HELLO, replace(ASIDE, kept_at=1.0))

    progress = watch(spool, [HELLO]).look()

    assert progress.waiting == {HELLO}
    assert progress.failed == {}


def test_what_is_tried_again_waits_and_says_why(spool: Spool) -> None:
    """A cache that is down is a trouble, and no failure."""
    spool.add([HELLO])
    remember(spool, HELLO, RETRIED)

    looked = watch(spool, [HELLO]).look()

    assert looked == progress(waiting=[HELLO], troubles={HELLO: "503 Slow Down"})


def test_others_are_of_no_concern(spool: Spool) -> None:
    """Only what is awaited is told of."""
    spool.add([HELLO, WORLD])
    remember(spool, WORLD, ASIDE)

    assert watch(spool, [HELLO]).look() == progress(waiting=[HELLO])


def until_settled(
    spool: Spool, steps: list[Callable[[], None]], timeout_seconds: float | None = None
) -> tuple[Progress, list[Progress]]:
    """Wait for both paths while each pause takes one of *steps* and ten seconds."""
    shown: list[Progress] = []
    now = 0.0

    def sleep(_seconds: float) -> None:
        nonlocal now
        now += 10.0
        steps.pop(0)()

    end = watch(spool, [HELLO, WORLD]).until_settled(
        timeout_seconds, shown.append, sleep=sleep, clock=lambda: now
    )
    return end, shown


def test_waits_until_all_is_posted(spool: Spool) -> None:
    """Each look is shown, the last one included."""
    spool.add([HELLO, WORLD])

    end, shown = until_settled(spool, [lambda: settle(spool, WORLD), lambda: settle(spool, HELLO)])

    assert end == progress(posted=[HELLO, WORLD])
    assert [len(each.waiting) for each in shown] == [2, 1, 0]


def test_waits_for_nothing_that_has_failed(spool: Spool) -> None:
    """When all that is left is aside, the wait is over."""
    spool.add([HELLO, WORLD])

    end, _shown = until_settled(
        spool, [lambda: settle(spool, WORLD), lambda: remember(spool, HELLO, ASIDE)]
    )

    assert end == progress(posted=[WORLD], failed={HELLO: "it is corrupt"})


def test_gives_up_when_time_is_up(spool: Spool) -> None:
    """What waits then is told as waiting."""
    spool.add([HELLO, WORLD])
    nothing = [lambda: None] * 10

    end, shown = until_settled(spool, nothing, timeout_seconds=25.0)

    assert end == progress(waiting=[HELLO, WORLD])
    assert len(shown) == 4


def test_looks_once_where_there_is_no_time(spool: Spool) -> None:
    """A timeout of nothing is a question."""
    spool.add([HELLO, WORLD])

    end, shown = until_settled(spool, [], timeout_seconds=0.0)

    assert end == progress(waiting=[HELLO, WORLD])
    assert shown == [end]

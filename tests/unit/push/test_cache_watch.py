"""How a cache does: what makes it down, up, or to be tried out, and who may cut a rest short."""

import asyncio
from pathlib import Path

import pytest

from narpost.backoff import Backoff
from narpost.errors import CacheBusy, CacheRefused, CacheUnreachable
from narpost.events import CacheDown, CacheUp, Event
from narpost.push.cache_watch import CacheWatch, Surroundings
from narpost.push.health import PATHS_IN_A_ROW, Condition, Health
from narpost.queue.ledger import Ledger
from support.fake_store import store_path

PATHS = [store_path(f"path-{number}") for number in range(PATHS_IN_A_ROW + 1)]
AWAY = CacheUnreachable("it is away")


def after_failures(count: int) -> Health:
    """A cache at which so many paths failed in a row."""
    health = Health()
    for path in PATHS[:count]:
        health = health.after_failure(path, AWAY)
    return health


def test_one_path_that_fails_again_and_again_takes_no_cache_down() -> None:
    """It is the path, for all that is known."""
    health = Health()
    for _ in range(10):
        health = health.after_failure(PATHS[0], AWAY)

    assert health.condition is Condition.FAILING


def test_several_paths_in_a_row_take_it_down() -> None:
    """And more than those are not remembered: there may be very many."""
    assert not after_failures(PATHS_IN_A_ROW - 1).is_down
    assert after_failures(PATHS_IN_A_ROW).is_down
    assert len(after_failures(PATHS_IN_A_ROW + 1).failed) == PATHS_IN_A_ROW


@pytest.mark.parametrize("error", [CacheBusy("slower"), CacheRefused("no such bucket")])
def test_an_answer_that_concerns_all_takes_it_down_at_once(error: CacheRefused) -> None:
    """No second path needs to fail."""
    assert Health().after_failure(PATHS[0], error).is_down


def test_after_paths_have_failed_one_is_tried_out() -> None:
    """An answer to a question says nothing of what it takes."""
    assert after_failures(PATHS_IN_A_ROW).after_probe(None).condition is Condition.ON_TRIAL


def test_where_no_path_has_failed_a_probe_is_enough() -> None:
    """A cache that was away when this machine started is up when it answers, builds or none."""
    health = Health().after_probe(AWAY).after_probe(None)

    assert (health.condition, health.trouble) == (Condition.UP, None)


def test_only_what_became_visible_counts_as_taken(tmp_path: Path) -> None:
    """That something was found there says nothing about credentials that may not write."""
    with Ledger(tmp_path) as ledger:
        watch = watch_of(ledger, [], failures=0)

        watch.thrive()
        before = watch.successes
        watch.take()

        assert (before, watch.successes) == (0, 1)


def test_a_hurry_during_a_probe_cuts_the_rest_after_it_short(tmp_path: Path) -> None:
    """The wish is not forgotten because the probe was under way."""
    events: list[Event] = []

    async def run(watch: CacheWatch) -> None:
        waiting = asyncio.create_task(watch.until_up(None))
        await asyncio.sleep(0)
        assert watch.is_down
        watch.hurry()
        async with asyncio.timeout(30):
            await waiting

    with Ledger(tmp_path) as ledger:
        asyncio.run(run(watch_of(ledger, events, failures=1)))

    assert [type(event) for event in events] == [CacheDown, CacheUp]


def watch_of(ledger: Ledger, events: list[Event], failures: int) -> CacheWatch:
    """A watch over a cache that answers after so many failures; its rests take an hour."""
    left = failures

    async def open_cache() -> None:
        nonlocal left
        left -= 1
        if left >= 0:
            raise AWAY

    backoff = Backoff(first_seconds=3600.0, longest_seconds=3600.0)
    around = Surroundings(lambda: 0.0, lambda: 1.0, events.append, backoff)
    return CacheWatch("main", open_cache, ledger, around)

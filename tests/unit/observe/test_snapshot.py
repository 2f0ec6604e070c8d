"""The one picture of the queue and its caches."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from narpost.observe import snapshot
from narpost.observe.snapshot import DAY_SECONDS, CachePicture, Failure, Snapshot
from narpost.queue.ledger import Ledger, Standing
from narpost.queue.lock import DaemonLock
from narpost.queue.spool import Spool
from narpost.queue.states import State
from support.fake_store import STORE_DIR, store_path

HELLO, WORLD, LIBRARY = sorted(map(store_path, ("hello", "world", "library")))
NOW = 10 * DAY_SECONDS
RETRIED = Standing(State.WAITING, tries=2, due_at=NOW + 5, reason="503 Slow Down")
ASIDE = Standing(State.SET_ASIDE, tries=1, reason="it is corrupt")
CACHES = [("main", "s3://nix"), ("other", "file:///srv/cache")]


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    """An empty queue folder."""
    spool = Spool(tmp_path, STORE_DIR)
    spool.prepare(tmp_path)
    return spool


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """An empty ledger."""
    with Ledger(tmp_path) as ledger:
        yield ledger


def take(spool: Spool, ledger: Ledger) -> Snapshot:
    """The picture of both caches."""
    ledger.save()
    return snapshot.take(spool, ledger, DaemonLock(spool.directory), CACHES, NOW)


def picture(name: str, url: str, **counts: int) -> CachePicture:
    """A cache with these counts, all others being nothing."""
    nothing = dict.fromkeys(
        "waiting retrying set_aside posted_today nar_bytes_today file_bytes_today".split(), 0
    )
    return CachePicture(name=name, url=url, **(nothing | counts))


def test_an_empty_queue(spool: Spool, ledger: Ledger) -> None:
    """Nothing waits, nothing is old, nobody works."""
    taken = take(spool, ledger)

    assert taken == Snapshot(
        is_daemon_running=False,
        depth=0,
        oldest_seconds=None,
        caches=tuple(picture(name, url) for name, url in CACHES),
        failures=(),
    )


def test_a_queue_whose_folder_was_never_made(tmp_path: Path, ledger: Ledger) -> None:
    """To look before anything was queued is no error."""
    taken = take(Spool(tmp_path / "away", STORE_DIR), ledger)

    assert taken.depth == 0
    assert not taken.is_daemon_running


def test_a_daemon_at_work_is_seen(spool: Spool, ledger: Ledger) -> None:
    """By its lock."""
    lock = DaemonLock(spool.directory)
    lock.take()

    taken = take(spool, ledger)

    assert taken.is_daemon_running
    lock.release()


def test_what_is_queued_waits_for_each_cache(spool: Spool, ledger: Ledger) -> None:
    """What no ledger knows yet is there all the same; what is no entry is not counted."""
    spool.add([HELLO, WORLD])
    spool.folder.joinpath("stray").touch()

    taken = take(spool, ledger)

    assert taken.depth == 2
    assert [cache.waiting for cache in taken.caches] == [2, 2]


def test_the_age_is_that_of_the_oldest(spool: Spool, ledger: Ledger) -> None:
    """In seconds since its link was made."""
    spool.add([HELLO, WORLD])
    for path, age in ((HELLO, 30), (WORLD, 7200)):
        made_at = NOW - age
        os.utime(spool.folder / path.base_name, (made_at, made_at), follow_symlinks=False)

    taken = take(spool, ledger)

    assert taken.oldest_seconds == 7200


def test_each_entry_is_counted_by_its_standing(spool: Spool, ledger: Ledger) -> None:
    """New, failed before, or aside: one of the three for each cache."""
    spool.add([HELLO, WORLD, LIBRARY])
    ledger.remember(HELLO, "main", RETRIED)
    ledger.remember(WORLD, "main", ASIDE)

    taken = take(spool, ledger)

    assert taken.caches == (
        picture("main", "s3://nix", waiting=1, retrying=1, set_aside=1),
        picture("other", "file:///srv/cache", waiting=3),
    )


def test_what_was_posted_counts_for_a_day(spool: Spool, ledger: Ledger) -> None:
    """Older postings are history."""
    ledger.post(HELLO, "main", (100, 10), NOW - DAY_SECONDS - 1)
    ledger.post(WORLD, "main", (200, 20), NOW - DAY_SECONDS)
    ledger.post(LIBRARY, "main", (400, 40), NOW)

    taken = take(spool, ledger)

    assert taken.caches[0] == picture(
        "main", "s3://nix", posted_today=2, nar_bytes_today=600, file_bytes_today=60
    )


def test_failures_are_listed_with_their_reasons(spool: Spool, ledger: Ledger) -> None:
    """In the order of their names, one for each cache that failed."""
    spool.add([HELLO, WORLD])
    ledger.remember(WORLD, "other", RETRIED)
    ledger.remember(HELLO, "main", ASIDE)

    taken = take(spool, ledger)

    assert taken.failures == (
        Failure(HELLO.base_name, "main", "set aside", 1, "it is corrupt"),
        Failure(WORLD.base_name, "other", "waiting", 2, "503 Slow Down"),
    )


def test_an_entry_that_is_gone_is_no_failure(spool: Spool, ledger: Ledger) -> None:
    """What was taken out of the queue is nobody's trouble, whatever the ledger still knows."""
    ledger.remember(HELLO, "main", ASIDE)

    assert take(spool, ledger).failures == ()


def test_what_failed_and_then_was_posted_is_no_failure(spool: Spool, ledger: Ledger) -> None:
    """An entry that still waits for one cache is no failure of the cache that has it."""
    spool.add([HELLO])
    confirmed = Standing(State.CONFIRMED, RETRIED.tries, RETRIED.due_at, RETRIED.reason)
    ledger.remember(HELLO, "main", confirmed)

    taken = take(spool, ledger)

    assert taken.failures == ()
    assert taken.caches[0] == picture("main", "s3://nix")


def test_a_cache_that_is_down_says_since_when_and_why(ledger: Ledger, spool: Spool) -> None:
    """Since it went down, and not since the last probe; a cache that is up says nothing."""
    ledger.keep_health("main", "down", "cannot reach it", NOW - 60)
    ledger.keep_health("other", "up", "", NOW - 60)
    ledger.save()
    ledger.keep_health("main", "down", "still not", NOW - 5)
    ledger.save()

    main, other = take(spool, ledger).caches

    assert (main.health, main.health_seconds, main.trouble) == ("down", 60, "still not")
    assert (other.health, other.health_seconds, other.trouble) == ("up", None, "")

"""The one picture of the queue and its caches that every view shows."""

from collections.abc import Sequence
from dataclasses import dataclass

from narpost.nix.store_path import StorePath
from narpost.queue.ledger import CacheHealth, Ledger, Standing, Totals
from narpost.queue.lock import DaemonLock
from narpost.queue.spool import Spool
from narpost.queue.states import State

DAY_SECONDS = 86400.0


@dataclass(frozen=True, slots=True)
class CachePicture:
    """How one cache stands; sizes in bytes, over the last 24 hours.

    *health* is a word of `Condition`, with the *trouble* where it is not up, and the age of that.
    """

    name: str
    url: str
    waiting: int
    retrying: int
    set_aside: int
    posted_today: int
    nar_bytes_today: int
    file_bytes_today: int
    health: str = "up"
    health_seconds: float | None = None
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Failure:
    """An entry that failed at a cache, and is tried again or set aside."""

    path: str
    cache: str
    state: str
    tries: int
    reason: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """*depth* entries are queued; *oldest_seconds* is the age of the oldest, if there is one."""

    is_daemon_running: bool
    depth: int
    oldest_seconds: float | None
    caches: tuple[CachePicture, ...]
    failures: tuple[Failure, ...]


def take(
    spool: Spool, ledger: Ledger, lock: DaemonLock, caches: Sequence[tuple[str, str]], now: float
) -> Snapshot:
    """Look at folder and ledger; *caches* are names and URLs."""
    entries = spool.queued()
    standings = ledger.standings()
    totals = ledger.totals(now - DAY_SECONDS)
    healths = ledger.healths()
    return Snapshot(
        is_daemon_running=lock.is_held(),
        depth=len(entries),
        oldest_seconds=max((now - entry.queued_at for entry in entries), default=None),
        caches=tuple(
            _picture(
                name,
                url,
                healths.get(name, CacheHealth("up", "", now)),
                [standings.get((entry.path.base_name, name), Standing()) for entry in entries],
                totals.get(name, Totals(0, 0, 0)),
                now,
            )
            for name, url in caches
        ),
        failures=tuple(
            Failure(path, cache, standing.state.value, standing.tries, standing.reason)
            for (path, cache), standing in sorted(standings.items())
            if standing.reason
            and standing.state is not State.CONFIRMED
            and spool.holds(StorePath(path))
        ),
    )


def _picture(
    name: str,
    url: str,
    health: CacheHealth,
    own: Sequence[Standing],
    today: Totals,
    now: float,
) -> CachePicture:
    return CachePicture(
        name=name,
        url=url,
        health=health.condition,
        health_seconds=max(0.0, now - health.since) if health.reason else None,
        trouble=health.reason,
        waiting=sum(each.state is State.WAITING and not each.tries for each in own),
        retrying=sum(each.state is State.WAITING and each.tries > 0 for each in own),
        set_aside=sum(each.state is State.SET_ASIDE for each in own),
        posted_today=today.paths,
        nar_bytes_today=today.nar_bytes,
        file_bytes_today=today.file_bytes,
    )

"""What is queued, entry by entry."""

from collections.abc import Sequence
from dataclasses import dataclass

from narpost.queue.ledger import Ledger, Standing
from narpost.queue.spool import Spool


@dataclass(frozen=True, slots=True)
class QueuedEntry:
    """How a path stands with one cache; *reason* is empty where nothing has failed."""

    path: str
    cache: str
    state: str
    tries: int
    reason: str
    queued_seconds: float


def entries(spool: Spool, ledger: Ledger, caches: Sequence[str], now: float) -> list[QueuedEntry]:
    """Look at folder and ledger: each entry once for each of *caches*, oldest first."""
    standings = ledger.standings()
    found: list[QueuedEntry] = []
    for entry in sorted(spool.queued(), key=lambda each: each.queued_at):
        for cache in caches:
            standing = standings.get((entry.path.base_name, cache), Standing())
            found.append(
                QueuedEntry(
                    path=entry.path.base_name,
                    cache=cache,
                    state=standing.state.value,
                    tries=standing.tries,
                    reason=standing.reason,
                    queued_seconds=max(0.0, now - entry.queued_at),
                )
            )
    return found

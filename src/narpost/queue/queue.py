"""The queue: the folder of links, and how each entry stands with each cache.

The folder says what is queued; the ledger only remembers how far each entry is. An entry's link
goes when every cache has confirmed it, and not before.
"""

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from narpost.errors import NarpostError
from narpost.events import (
    Confirmed,
    Dropped,
    Emit,
    Ignored,
    PutAside,
    Queued,
    Renewed,
    Retrying,
    Settled,
)
from narpost.nix.store_path import StorePath
from narpost.queue.ledger import Ledger, Standing
from narpost.queue.spool import Mark, Spool
from narpost.queue.states import Move, State, moved

# Nothing is postponed for longer; what seems to be was so before the clock was set back.
LONGEST_SECONDS = 3600.0


class Queue:
    """Entries for *caches*, by name; one thread uses it."""

    def __init__(
        self,
        spool: Spool,
        ledger: Ledger,
        caches: Sequence[str],
        *,
        clock: Callable[[], float],
        emit: Emit,
    ) -> None:
        self.spool = spool
        self.ledger = ledger
        self.caches = tuple(caches)
        self._clock = clock
        self._emit = emit
        self._remembered = ledger.standings()
        self._entries: dict[StorePath, dict[str, Standing]] = {}
        self._derivations: set[StorePath] = set()
        self._strays: set[str] = set()
        self._ready: dict[str, deque[StorePath]] = {cache: deque() for cache in caches}
        self._later: dict[str, list[tuple[float, int, StorePath]]] = {cache: [] for cache in caches}
        self._turns = itertools.count()
        self._failed: dict[StorePath, Mark | None] = {}
        self._settled: list[StorePath] = []

    def look(self) -> list[StorePath]:
        """Take in what the folder has now; returns the derivations whose outputs are wanted."""
        self._retry_renewed()
        sight = self.spool.look({*self._entries, *self._derivations, *self._settled})
        for path in sight.gone:
            self._derivations.discard(path)
            self._failed.pop(path, None)
            if self._entries.pop(path, None) is not None:
                self.ledger.forget(path)
        for entry in sorted(sight.entries, key=lambda entry: entry.queued_at):
            if entry.path.is_derivation:
                self._derivations.add(entry.path)
            else:
                self._admit(entry.path)
        self._forget_unqueued()
        for name in sight.strays.keys() - self._strays:
            self._emit(Ignored(name, sight.strays[name]))
        self._strays = set(sight.strays)
        return sorted(self._derivations)

    def replace_derivation(self, derivation: StorePath, outputs: Iterable[StorePath]) -> None:
        """Queue *outputs* in the place of their *derivation*."""
        self.spool.add(outputs)
        self.spool.remove(derivation)
        self._derivations.discard(derivation)

    def refuse_derivation(self, derivation: StorePath, reason: str) -> None:
        """Set *derivation* aside, since its outputs cannot be found."""
        self._derivations.discard(derivation)
        self._entries[derivation] = {}
        for cache in self.caches:
            self._entries[derivation][cache] = Standing()
            self._set_aside(cache, derivation, reason)

    def claim(self, cache: str, limit: int) -> list[StorePath]:
        """Take up to *limit* entries in hand that are due for *cache*, oldest first."""
        self._wake_late(cache)
        ready = self._ready[cache]
        claimed: list[StorePath] = []
        while ready and len(claimed) < limit:
            path = ready.popleft()
            standing = self._standing(path, cache)
            if standing is not None and standing.state is State.WAITING:
                self._entries[path][cache] = replace(
                    standing, state=moved(standing.state, Move.CLAIM)
                )
                claimed.append(path)
        return claimed

    def next_due_in(self, cache: str) -> float | None:
        """In how many seconds the next postponed entry of *cache* is due."""
        if not self._later[cache]:
            return None
        seconds = self._later[cache][0][0] - self._clock()
        return max(0.0, seconds) if seconds <= LONGEST_SECONDS else 0.0

    def confirm(self, cache: str, path: StorePath) -> None:
        """*cache* has *path* and its closure; the last such cache lets go of the link."""
        standing = self._in_hand(path, cache)
        if standing is None:
            return
        standings = self._entries[path]
        standings[cache] = replace(standing, state=moved(standing.state, Move.CONFIRM))
        self.ledger.remember(path, cache, standings[cache])
        self._settle_if_confirmed(path)
        self._emit(Confirmed(cache, path.base_name))

    def postpone(self, cache: str, path: StorePath, error: NarpostError, seconds: float) -> None:
        """Try *path* again after *seconds*."""
        standing = self._in_hand(path, cache)
        if standing is None:
            return
        due_at = self._clock() + seconds
        state = moved(standing.state, Move.POSTPONE)
        self._keep(path, cache, Standing(state, standing.tries + 1, due_at, error.message))
        self._failed[path] = self.spool.mark(path)
        self._wait(cache, path, due_at)
        self._emit(Retrying(cache, path.base_name, error.message, seconds))

    def put_back(self, cache: str, path: StorePath, error: NarpostError) -> None:
        """It was not *path* that failed: its tries stay, and it is due as soon as it can go."""
        standing = self._in_hand(path, cache)
        if standing is None:
            return
        state = moved(standing.state, Move.PUT_BACK)
        self._keep(path, cache, Standing(state, standing.tries, 0.0, error.message))
        self._failed[path] = self.spool.mark(path)
        self._wait(cache, path, 0.0)

    def set_aside(self, cache: str, path: StorePath, error: NarpostError) -> None:
        """Leave *path* queued, and do not try again by ourselves."""
        if self._in_hand(path, cache) is not None:
            self._set_aside(cache, path, error.message)

    def tries(self, cache: str, path: StorePath) -> int:
        """How often *path* failed at *cache*."""
        standing = self._standing(path, cache)
        return standing.tries if standing else 0

    def retry(self, path: StorePath) -> None:
        """Try *path* again now, as if it had not failed."""
        self._failed.pop(path, None)
        if path.is_derivation and self._entries.pop(path, None) is not None:
            # It is not posted itself: its outputs are asked for again at the next look.
            self.ledger.forget(path)
            self._derivations.add(path)
        for cache, standing in self._entries.get(path, {}).items():
            if standing.state in {State.SET_ASIDE, State.WAITING}:
                self._keep(path, cache, Standing(moved(standing.state, Move.RETRY)))
                self._wait(cache, path, 0.0)

    def depth(self) -> int:
        """How many entries there are."""
        return len(self._entries) + len(self._derivations)

    def drop_set_aside(self, age_seconds: float) -> None:
        """Let go of what nobody has to try any more, and was queued so long ago."""
        for path, mark in list(self._failed.items()):
            states = {each.state for each in self._entries.get(path, {}).values()}
            is_over = states <= {State.SET_ASIDE, State.CONFIRMED}
            if mark and is_over and self._clock() - mark.made_at > age_seconds:
                self.spool.remove(path)
                self._emit(Dropped(path.base_name))

    def save(self) -> None:
        """Commit what is remembered, and then let go of the links of what is settled.

        In this order, so that whoever misses a link finds its end in the ledger.
        """
        self.ledger.save()
        settled, self._settled = self._settled, []
        for path in settled:
            self.spool.remove(path)
            self._emit(Settled(path.base_name))

    def close(self) -> None:
        """Save, and close the ledger."""
        self.save()
        self.ledger.close()

    def hurry(self) -> None:
        """Make what was postponed due now, as if it had not been tried."""
        for path, standings in self._entries.items():
            for cache, standing in standings.items():
                if standing.state is State.WAITING:
                    standings[cache] = Standing(moved(standing.state, Move.RETRY))
                    self._wait(cache, path, standings[cache].due_at)

    def has_work(
        self,
        tries_limit: int,
        only: Collection[StorePath] | None = None,
        caches: Collection[str] | None = None,
    ) -> bool:
        """Whether something is in hand, or waits and failed fewer times than *tries_limit*.

        *only* and *caches* say which entries and caches count; all do where they are not given.
        """
        return any(
            standing.state is State.IN_HAND
            or (standing.state is State.WAITING and standing.tries < tries_limit)
            for path, standings in self._entries.items()
            if only is None or path in only
            for cache, standing in standings.items()
            if caches is None or cache in caches
        )

    def left(self, only: Collection[StorePath] | None = None) -> dict[StorePath, str]:
        """What is queued, each with the reason why it still is, if one is known."""
        reasons = {path: _reason(standings) for path, standings in self._entries.items()}
        reasons |= dict.fromkeys(self._derivations, "its outputs could not be asked for")
        return {path: reasons[path] for path in reasons if only is None or path in only}

    def _admit(self, path: StorePath) -> None:
        standings = self._entries[path] = {}
        for cache in self.caches:
            standing = self._remembered.pop((path.base_name, cache), Standing())
            if standing.state is State.SET_ASIDE and standing.due_at != self._made_at(path):
                standing = Standing()  # Its link was made anew while nobody looked.
            standings[cache] = standing
            if standing.state is State.WAITING:
                self._wait(cache, path, standing.due_at)
            if standing.reason:
                self._failed[path] = self.spool.mark(path)
        self._emit(Queued(path.base_name))
        self._settle_if_confirmed(path)

    def _settle_if_confirmed(self, path: StorePath) -> None:
        if all(each.state is State.CONFIRMED for each in self._entries[path].values()):
            del self._entries[path]
            self._failed.pop(path, None)
            self.ledger.settle(path, self._clock())
            self._settled.append(path)

    def _retry_renewed(self) -> None:
        """A link that was made anew is somebody's wish that its path be tried again now."""
        marks = {path: self.spool.mark(path) for path in self._failed}
        renewed = [path for path, mark in marks.items() if mark and mark != self._failed[path]]
        for path in renewed:
            self.retry(path)
            self._emit(Renewed(path.base_name))

    def _forget_unqueued(self) -> None:
        """Drop what is remembered of paths that left the folder while nobody looked."""
        for name in {name for name, _cache in self._remembered}:
            if StorePath(name) not in self._entries:
                self.ledger.forget(StorePath(name))
        self._remembered.clear()

    def _wait(self, cache: str, path: StorePath, due_at: float) -> None:
        heapq.heappush(self._later[cache], (due_at, next(self._turns), path))

    def _wake_late(self, cache: str) -> None:
        later, now = self._later[cache], self._clock()
        while later and not 0 < later[0][0] - now <= LONGEST_SECONDS:
            due_at, _turn, path = heapq.heappop(later)
            standing = self._standing(path, cache)
            # Another time may have been set since.
            if standing is not None and standing.due_at == due_at:
                self._ready[cache].append(path)

    def _in_hand(self, path: StorePath, cache: str) -> Standing | None:
        """The standing of an entry in hand; none if its link was taken out meanwhile."""
        standing = self._standing(path, cache)
        return standing if standing and standing.state is State.IN_HAND else None

    def _standing(self, path: StorePath, cache: str) -> Standing | None:
        return self._entries.get(path, {}).get(cache)

    def _set_aside(self, cache: str, path: StorePath, reason: str) -> None:
        standing = self._entries[path][cache]
        state = moved(standing.state, Move.SET_ASIDE)
        self._failed[path] = self.spool.mark(path)
        # Nothing is due of what is set aside: the time is that of the link which was tried.
        self._keep(path, cache, Standing(state, standing.tries + 1, self._made_at(path), reason))
        self._emit(PutAside(cache, path.base_name, reason))

    def _made_at(self, path: StorePath) -> float:
        mark = self.spool.mark(path)
        return mark.made_at if mark else 0.0

    def _keep(self, path: StorePath, cache: str, standing: Standing) -> None:
        standing = replace(standing, kept_at=self._clock())
        self._entries[path][cache] = standing
        self.ledger.remember(path, cache, standing)


def _reason(standings: Mapping[str, Standing]) -> str:
    return next((each.reason for each in standings.values() if each.reason), "")

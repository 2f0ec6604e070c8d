"""What a cache was seen to hold: asked again after a while, since another may have deleted it."""

import math
from collections.abc import Callable, Collection, Iterable

from narpost.nix.store_path import StorePath
from narpost.queue.ledger import Ledger

SEEN_SECONDS = 3600.0


class Seen:
    """Paths that the cache at *url* holds, each for SEEN_SECONDS from when it was last seen there.

    The ledger keeps them, so that a daemon that starts anew need not ask again.
    """

    def __init__(self, url: str, ledger: Ledger, clock: Callable[[], float]) -> None:
        self._url = url
        self._ledger = ledger
        self._clock = clock
        self._seen_at = ledger.seen(url, clock() - SEEN_SECONDS)

    def among(self, paths: Iterable[StorePath]) -> set[StorePath]:
        """Those of *paths* that were seen lately."""
        now = self._clock()
        # A clock that was set back makes no memory last longer.
        ages = ((path, now - self._seen_at.get(path, -math.inf)) for path in paths)
        return {path for path, age in ages if 0 <= age < SEEN_SECONDS}

    def add(self, paths: Collection[StorePath]) -> None:
        """They are there now."""
        now = self._clock()
        self._seen_at |= dict.fromkeys(paths, now)
        self._ledger.see(self._url, paths, now)

    def forget(self) -> None:
        """It is another cache now."""
        self._seen_at.clear()
        self._ledger.unsee(self._url)

    def forget_old(self) -> None:
        """Make room."""
        now = self._clock()
        self._seen_at = {path: at for path, at in self._seen_at.items() if now - at < SEEN_SECONDS}

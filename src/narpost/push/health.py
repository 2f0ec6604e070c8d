"""How a cache itself does, apart from the entries that wait for it.

One path that fails says little about its cache. Several that fail, with none that succeeds
between them, say that it is down; so does an answer that is about the cache and no path. While
it is down nothing is sent but one probe at a time, and no entry's tries are spent on it.
"""

from dataclasses import dataclass, replace
from enum import Enum
from typing import Self

from narpost.errors import CacheBusy, CacheRefused, CacheUnreachable, NarpostError
from narpost.nix.store_path import StorePath

# So many paths that fail in a row mean that it is not the paths.
PATHS_IN_A_ROW = 3


class Condition(Enum):
    """Values are the words in the ledger and on the screen."""

    UP = "up"
    FAILING = "failing"
    DOWN = "down"
    # It answers again, and one entry is on its way to show whether it also takes something.
    ON_TRIAL = "on trial"


@dataclass(frozen=True, slots=True)
class Health:
    """*failed* are paths that failed since one succeeded, *probes* those in vain since then."""

    condition: Condition = Condition.UP
    failed: frozenset[StorePath] = frozenset()
    probes: int = 0
    trouble: NarpostError | None = None

    @property
    def is_down(self) -> bool:
        """Whether nothing is to be sent."""
        return self.condition is Condition.DOWN

    def after_success(self) -> Self:
        """Something became visible, or was found to be."""
        return type(self)()

    def after_failure(self, path: StorePath, error: NarpostError) -> Self:
        """*path* failed with an error that may be the cache's."""
        # More of them say nothing new, and there may be very many.
        failed = self.failed if len(self.failed) >= PATHS_IN_A_ROW else self.failed | {path}
        is_down = (
            self.is_down
            or self.condition is Condition.ON_TRIAL
            or len(failed) >= PATHS_IN_A_ROW
            or concerns_all(error)
        )
        return type(self)(
            Condition.DOWN if is_down else Condition.FAILING, failed, self.probes, error
        )

    def after_probe(self, error: NarpostError | None) -> Self:
        """It was asked whether it is there."""
        if error is None:
            # Where no path has failed there is nothing to be tried out.
            condition = Condition.ON_TRIAL if self.failed else Condition.UP
            trouble = self.trouble if self.failed else None
            return replace(self, condition=condition, probes=self.probes + 1, trouble=trouble)
        return type(self)(Condition.DOWN, self.failed, self.probes + 1, error)


def may_be_the_cache(error: Exception) -> bool:
    """Whether *error* may say more about the cache than about a path."""
    return isinstance(error, CacheUnreachable | CacheRefused)


def concerns_all(error: NarpostError) -> bool:
    """Whether *error* would meet any path."""
    return isinstance(error, CacheBusy) or (
        isinstance(error, CacheRefused) and not error.is_about_one_object
    )

"""How long to wait before the next try."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Full jitter: a random time below a bound that doubles with each try.

    See "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """

    first_seconds: float = 1.0
    longest_seconds: float = 300.0

    def delay(self, tries: int, random: Callable[[], float]) -> float:
        """Seconds to wait after *tries* failures; *random* gives a number from 0 up to 1."""
        # 2**60 seconds is beyond any bound; a larger exponent would overflow a float.
        bound = self.first_seconds * 2.0 ** min(tries - 1, 60)
        return random() * min(bound, self.longest_seconds)

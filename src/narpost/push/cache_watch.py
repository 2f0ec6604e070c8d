"""Watches over one cache: probes it while it is down, and keeps in mind how it does."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from narpost.backoff import Backoff
from narpost.errors import CacheBusy, CacheRefused, CacheUnreachable, NarpostError
from narpost.events import CacheDown, CacheUp, Emit
from narpost.nix.store_path import StorePath
from narpost.push.health import Condition, Health, may_be_the_cache
from narpost.queue.ledger import Ledger

# A cache that asks us to go slower is left alone for as long at least.
BUSY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What changes from one run to another: time, chance, listeners."""

    clock: Callable[[], float]
    random: Callable[[], float]
    emit: Emit
    backoff: Backoff

    def delay(self, tries: int) -> float:
        """Seconds to wait after so many failures."""
        return self.backoff.delay(tries, self.random)


class CacheWatch:
    """How the cache *name* does; *open_cache* asks whether it is there."""

    def __init__(
        self,
        name: str,
        open_cache: Callable[[], Awaitable[None]],
        ledger: Ledger,
        around: Surroundings,
    ) -> None:
        self.successes = 0
        self._name = name
        self._open_cache = open_cache
        self._ledger = ledger
        self._around = around
        self._health = Health()
        self._hurry = asyncio.Event()

    @property
    def is_down(self) -> bool:
        """Whether nothing is to be sent."""
        return self._health.is_down

    @property
    def is_on_trial(self) -> bool:
        """Whether one entry alone is to be sent."""
        return self._health.condition is Condition.ON_TRIAL

    @property
    def trouble(self) -> NarpostError | None:
        """What failed last, if nothing has succeeded since."""
        return self._health.trouble

    def hurry(self) -> None:
        """Somebody wants it tried again now."""
        if self.is_down:  # Else there is no rest to cut short.
            self._hurry.set()

    async def until_up(self, tries_limit: int | None) -> None:
        """Probe the cache until it answers, *tries_limit* times at most."""
        if self.trouble and self.is_down:
            await self._rest(self.trouble, tries_limit)
        while error := await self._probe():
            await self._rest(error, tries_limit)

    def collapse(self, error: NarpostError) -> None:
        """Nothing at all can be asked of it."""
        self._change(self._health.after_probe(error))

    def suffer(self, path: StorePath, error: NarpostError) -> bool:
        """*path* failed, and perhaps the cache with it; says whether it went down just now."""
        was_down = self.is_down
        if may_be_the_cache(error):
            self._change(self._health.after_failure(path, error))
        return self.is_down and not was_down

    def take(self) -> None:
        """A path became visible."""
        self.successes += 1
        self.thrive()

    def thrive(self) -> None:
        """Something succeeded, if only a question."""
        if self._health != Health():
            self._change(self._health.after_success())

    async def _probe(self) -> NarpostError | None:
        was_down = self.is_down
        try:
            await self._open_cache()
        except (CacheUnreachable, CacheRefused) as error:
            self.collapse(error)
            return error
        if was_down:
            self._change(self._health.after_probe(None))
        return None

    async def _rest(self, error: NarpostError, tries_limit: int | None) -> None:
        """Leave the cache alone for a while, unless a person is in a hurry."""
        if tries_limit is not None and self._health.probes >= tries_limit:
            raise error
        seconds = self._around.delay(self._health.probes + 1)
        if isinstance(error, CacheBusy):
            seconds = max(seconds, BUSY_SECONDS)
        self._around.emit(CacheDown(self._name, error.message, seconds))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._hurry.wait()
        self._hurry.clear()

    def _change(self, health: Health) -> None:
        was_down = self.is_down or self.is_on_trial
        self._health = health
        reason = health.trouble.message if health.trouble else ""
        now = self._around.clock()
        self._ledger.keep_health(self._name, health.condition.value, reason, now)
        if was_down and health.condition is Condition.UP:
            self._around.emit(CacheUp(self._name))

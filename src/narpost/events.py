"""What happens, told as values: the code that works emits them, listeners make use of them.

Paths are given by their base name (`<hash part>-<name>`), sizes in bytes, times in seconds.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Queued:
    """An entry was found in the queue folder and has not been seen before."""

    path: str


@dataclass(frozen=True, slots=True)
class Renewed:
    """An entry that had failed was queued once more: somebody wants it tried now."""

    path: str


@dataclass(frozen=True, slots=True)
class Ignored:
    """Something lies in the queue folder that is not an entry of ours."""

    entry: str
    reason: str


@dataclass(frozen=True, slots=True)
class Planned:
    """A batch of entries needs *missing* paths in this cache, *nar_bytes* in all."""

    cache: str
    missing: int
    nar_bytes: int


@dataclass(frozen=True, slots=True)
class Posted:
    """A path's narinfo is in the cache, with all that it promises."""

    cache: str
    path: str
    nar_bytes: int
    file_bytes: int


@dataclass(frozen=True, slots=True)
class Confirmed:
    """A cache has the entry and its closure."""

    cache: str
    path: str


@dataclass(frozen=True, slots=True)
class Settled:
    """Every cache has the entry and its closure; its link is gone."""

    path: str


@dataclass(frozen=True, slots=True)
class Retrying:
    """An entry could not be posted and is tried again after *after_seconds*."""

    cache: str
    path: str
    reason: str
    after_seconds: float


@dataclass(frozen=True, slots=True)
class PutAside:
    """An entry cannot be posted as it is: it stays queued until a person decides."""

    cache: str
    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class CacheDown:
    """A cache takes nothing at all, and is asked again after *after_seconds*."""

    cache: str
    reason: str
    after_seconds: float


@dataclass(frozen=True, slots=True)
class CacheUp:
    """A cache that was down takes what is sent to it."""

    cache: str


@dataclass(frozen=True, slots=True)
class Dropped:
    """An entry that was set aside long ago was let go of, as is configured."""

    path: str


@dataclass(frozen=True, slots=True)
class Deep:
    """More entries wait than somebody wants to see; nothing is held up by that."""

    depth: int


@dataclass(frozen=True, slots=True)
class Troubled:
    """Something outside of any one entry failed, such as reading the queue folder."""

    doing: str
    reason: str


Event = (
    Queued
    | Renewed
    | Ignored
    | Planned
    | Posted
    | Confirmed
    | Settled
    | Retrying
    | PutAside
    | CacheDown
    | CacheUp
    | Dropped
    | Deep
    | Troubled
)
Emit = Callable[[Event], None]


class Bus:
    """Passes each event on to all who listen."""

    def __init__(self) -> None:
        self._listeners: list[Emit] = []

    def listen(self, listener: Emit) -> None:
        """From now on, *listener* hears each event."""
        self._listeners.append(listener)

    def __call__(self, event: Event) -> None:
        """Tell all of *event*."""
        for listener in self._listeners:
            # A listener's own trouble, such as a closed terminal, is not that of the work.
            with contextlib.suppress(OSError):
                listener(event)

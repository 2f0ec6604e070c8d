"""Taking in what the hook has queued: derivations become their outputs."""

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from narpost.errors import NarpostError, StoreRefused
from narpost.events import Deep, Emit, Troubled
from narpost.nix.store_path import StorePath
from narpost.queue.queue import Queue
from narpost.store.store import Store

DAY_SECONDS = 86400.0


@dataclass(frozen=True, slots=True)
class Policy:
    """A deeper queue than *warn_depth* is told of; what is set aside may go by its age in days."""

    warn_depth: int
    drop_set_aside_after_days: int | None = None


class Intake:
    """Looks at the queue folder, and asks the store for the outputs of queued derivations.

    They are asked for even where the hook queued outputs, since Nix may have told it only of
    those that somebody wanted (nix#6960).
    """

    def __init__(self, queue: Queue, store: Store, emit: Emit, policy: Policy) -> None:
        self._queue = queue
        self._store = store
        self._emit = emit
        self._policy = policy
        self._is_deep = False

    async def look(self) -> None:
        """Bring the queue up to date; what cannot be done now is tried at the next look."""
        with self._tolerated():
            derivations = self._queue.look()
            for derivation in derivations:
                with self._tolerated():
                    await self._resolve(derivation)
            if derivations:
                self._queue.look()
            self._apply_policy()

    @contextlib.contextmanager
    def _tolerated(self) -> Iterator[None]:
        try:
            yield
        except NarpostError as error:
            self._emit(Troubled("take in what is queued", error.message))

    def _apply_policy(self) -> None:
        days = self._policy.drop_set_aside_after_days
        if days is not None:
            self._queue.drop_set_aside(days * DAY_SECONDS)
        depth = self._queue.depth()
        if depth > self._policy.warn_depth and not self._is_deep:
            self._emit(Deep(depth))
        self._is_deep = depth > self._policy.warn_depth

    async def _resolve(self, derivation: StorePath) -> None:
        try:
            outputs = await asyncio.to_thread(self._valid_outputs, derivation)
        except StoreRefused as error:
            self._queue.refuse_derivation(derivation, error.message)
        else:
            self._queue.replace_derivation(derivation, outputs)

    def _valid_outputs(self, derivation: StorePath) -> set[StorePath]:
        return self._store.valid_paths(self._store.outputs(derivation))

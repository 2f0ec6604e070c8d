"""Waiting for entries that another process posts."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from narpost.nix.store_path import StorePath
from narpost.queue.ledger import Ledger
from narpost.queue.spool import Spool
from narpost.queue.states import State

LOOK_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the awaited paths are; *failed* gives reasons, *troubles* why some still wait."""

    posted: frozenset[StorePath]
    waiting: frozenset[StorePath]
    failed: dict[StorePath, str]
    troubles: dict[StorePath, str]


class Watch:
    """Watches *paths* by the queue folder, and by what the daemon writes into its ledger.

    A path is posted when its link is gone. One that was never seen in the folder is posted only
    if the ledger says so. While a derivation of them is queued, whatever else is queued is
    watched too, since its outputs will be.
    """

    def __init__(
        self, spool: Spool, open_ledger: Callable[[], Ledger], paths: Iterable[StorePath]
    ) -> None:
        self._spool = spool
        self._open_ledger = open_ledger
        self._paths = set(paths)
        self._was_queued: set[StorePath] = set()

    def look(self) -> Progress:
        """How things stand now."""
        queued_at = self._queued_at()
        waiting = self._waiting(set(queued_at))
        # After the folder: a link goes only when its end is in the ledger.
        with self._open_ledger() as ledger:
            reasons = {
                (path, standing.state): standing.reason
                for (path, _cache), standing in ledger.standings().items()
                # What was kept before the link was made anew is of an earlier time.
                if standing.reason and standing.kept_at >= queued_at.get(StorePath(path), 0.0)
            }
            gone = self._paths - waiting
            unknown = {path for path in gone - self._was_queued if not ledger.has_settled(path)}
        aside = _reasons(waiting, State.SET_ASIDE, reasons)
        never = "it is not queued, and nothing tells that it was posted"
        return Progress(
            posted=frozenset(gone - unknown),
            waiting=frozenset(waiting - aside.keys()),
            failed=aside | dict.fromkeys(unknown, never),
            troubles=_reasons(waiting, State.WAITING, reasons),
        )

    def until_settled(
        self,
        timeout_seconds: float | None,
        show: Callable[[Progress], None],
        is_hopeful: Callable[[], bool] = lambda: True,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> Progress:
        """Look again and again until nothing waits, or time is up, or there is no more hope.

        *show* sees each look.
        """
        begun = clock()
        while True:
            is_last = not is_hopeful()
            progress = self.look()
            show(progress)
            is_late = timeout_seconds is not None and clock() - begun >= timeout_seconds
            if not progress.waiting or is_late or is_last:
                return progress
            sleep(LOOK_SECONDS)

    def _queued_at(self) -> dict[StorePath, float]:
        return {entry.path: entry.queued_at for entry in self._spool.queued()}

    def _waiting(self, queued: set[StorePath]) -> set[StorePath]:
        if any(path.is_derivation for path in self._paths & (queued | self._was_queued)):
            self._paths |= queued
        waiting = self._paths & queued
        self._was_queued |= waiting
        return waiting


def _reasons(
    paths: Iterable[StorePath], state: State, reasons: dict[tuple[str, State], str]
) -> dict[StorePath, str]:
    return {
        path: reasons[path.base_name, state] for path in paths if (path.base_name, state) in reasons
    }

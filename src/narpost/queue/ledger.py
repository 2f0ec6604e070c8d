"""What is remembered of the queue, in a SQLite file: memory, not truth.

Delete the file at any moment: entries come back from the queue folder, with their tries
forgotten. So writes are gathered and committed now and then, and a crash loses nothing that
matters.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from narpost.nix.store_path import StorePath
from narpost.queue.ledger_file import LedgerFile, Row
from narpost.queue.states import State

FILE = "ledger.sqlite"
HISTORY_SECONDS = 90 * 86400.0
SEEN_KEPT_SECONDS = 86400.0

_STATES = {state.value: state for state in State}

_REMEMBER = "REPLACE INTO entry VALUES (?, ?, ?, ?, ?, ?, ?)"
_FORGET = "DELETE FROM entry WHERE path = ?"
_POSTED = "INSERT INTO posting VALUES (?, ?, ?, ?, ?)"
_SETTLED = "REPLACE INTO settled VALUES (?, ?)"
_SEEN = "REPLACE INTO seen VALUES (?, ?, ?)"
_UNKNOW = "DELETE FROM known"
_KNOW = "INSERT INTO known VALUES (?)"
_UNSEEN = "DELETE FROM seen WHERE url = ?"
# The time is that of the last change of condition.
_HEALTH = """
    INSERT INTO health VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET
        since = iif(condition = excluded.condition, since, excluded.since),
        condition = excluded.condition,
        reason = excluded.reason
"""
_PRUNE_SEEN = "DELETE FROM seen WHERE seen_at < ?"
_PRUNE_POSTED = "DELETE FROM posting WHERE posted_at < ?"
_PRUNE_SETTLED = "DELETE FROM settled WHERE settled_at < ?"


@dataclass(frozen=True, slots=True)
class Standing:
    """How an entry stands with one cache since *kept_at*; times in seconds since the epoch."""

    state: State = State.WAITING
    tries: int = 0
    due_at: float = 0.0
    reason: str = ""
    kept_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Totals:
    """What was posted to one cache since some time."""

    paths: int
    nar_bytes: int
    file_bytes: int


@dataclass(slots=True)
class _Unsaved:
    """What is to be written: of an entry only the last that happened to it."""

    entries: dict[str, dict[str, Row]] = field(default_factory=dict)
    forgotten: set[str] = field(default_factory=set)
    postings: list[Row] = field(default_factory=list)
    settled: list[Row] = field(default_factory=list)
    healths: dict[str, Row] = field(default_factory=dict)
    known: list[Row] | None = None
    unseen: list[Row] = field(default_factory=list)
    seen: list[Row] = field(default_factory=list)
    pruned_at: float | None = None

    def statements(self) -> Iterator[tuple[str, Sequence[Row]]]:
        """In the order in which they are to be carried out."""
        yield _FORGET, [(path,) for path in self.forgotten]
        yield (
            _REMEMBER,
            [
                (path, cache, *row)
                for path, standings in self.entries.items()
                for cache, row in standings.items()
            ],
        )
        yield _POSTED, self.postings
        yield _SETTLED, self.settled
        if self.known is not None:
            yield _UNKNOW, [()]
            yield _KNOW, self.known
        yield _HEALTH, list(self.healths.values())
        yield _UNSEEN, self.unseen
        yield _SEEN, self.seen
        if self.pruned_at is not None:
            yield _PRUNE_POSTED, [(self.pruned_at - HISTORY_SECONDS,)]
            yield _PRUNE_SETTLED, [(self.pruned_at - HISTORY_SECONDS,)]
            yield _PRUNE_SEEN, [(self.pruned_at - SEEN_KEPT_SECONDS,)]


@dataclass(frozen=True, slots=True)
class CacheHealth:
    """How a cache does, in a word, and *since* when, in seconds since the epoch."""

    condition: str
    reason: str
    since: float


class Ledger:
    """The file in *folder*; one thread uses it."""

    def __init__(self, folder: Path, *, is_writer: bool = True) -> None:
        self._file = LedgerFile(folder / FILE, is_writer=is_writer)
        self._unsaved = _Unsaved()

    def remember(self, path: StorePath, cache: str, standing: Standing) -> None:
        """Keep how *path* stands with *cache*."""
        row = (
            standing.state.value,
            standing.tries,
            standing.due_at,
            _storable(standing.reason),
            standing.kept_at,
        )
        self._unsaved.entries.setdefault(path.base_name, {})[cache] = row

    def forget(self, path: StorePath) -> None:
        """Drop what is kept of an entry that is gone."""
        self._unsaved.forgotten.add(path.base_name)
        self._unsaved.entries.pop(path.base_name, None)

    def post(self, path: StorePath, cache: str, sizes: tuple[int, int], now: float) -> None:
        """Keep that *path* was posted; *sizes* are those of the NAR and of the file."""
        self._unsaved.postings.append((path.base_name, cache, *sizes, now))

    def see(self, url: str, paths: Iterable[StorePath], now: float) -> None:
        """Keep that the cache at *url* has *paths*."""
        self._unsaved.seen += [(path.base_name, url, now) for path in paths]

    def unsee(self, url: str) -> None:
        """Drop what was seen at *url*."""
        self._unsaved.seen = [row for row in self._unsaved.seen if row[1] != url]
        self._unsaved.unseen.append((url,))

    def seen(self, url: str, since: float) -> dict[StorePath, float]:
        """What the cache at *url* was seen to have since then, and when that was."""
        query = "SELECT path, seen_at FROM seen WHERE url = ? AND seen_at >= ?"
        return {
            StorePath(path): seen_at
            for path, seen_at in self._file.rows(query, (url, since))
            if isinstance(path, str) and isinstance(seen_at, float)
        }

    def keep_health(self, cache: str, condition: str, reason: str, now: float) -> None:
        """Keep how *cache* does."""
        self._unsaved.healths[cache] = (cache, condition, _storable(reason), now)

    def healths(self) -> dict[str, CacheHealth]:
        """How each cache does, by name; none that nobody has tried yet."""
        rows = self._file.rows("SELECT cache, condition, reason, since FROM health")
        return {
            str(cache): CacheHealth(str(condition), str(reason), since)
            for cache, condition, reason, since in rows
            if isinstance(since, float)
        }

    def settle(self, path: StorePath, now: float) -> None:
        """Keep that every cache has *path*."""
        self.forget(path)
        self._unsaved.settled.append((path.base_name, now))

    def standings(self) -> dict[tuple[str, str], Standing]:
        """How entries stand, by base name and cache."""
        rows = self._file.rows(
            "SELECT path, cache, state, tries, due_at, reason, kept_at FROM entry"
        )
        return {
            (str(path), str(cache)): Standing(_STATES[state], tries, due_at, str(reason), kept_at)
            for path, cache, state, tries, due_at, reason, kept_at in rows
            if state in _STATES
            and isinstance(tries, int)
            and isinstance(due_at, float)
            and isinstance(kept_at, float)
        }

    def has_settled(self, path: StorePath) -> bool:
        """Whether *path* is remembered as being in every cache."""
        return bool(self._file.rows("SELECT 1 FROM settled WHERE path = ?", (path.base_name,)))

    def know(self, paths: Collection[StorePath]) -> None:
        """Keep that *paths*, and no others, were built here."""
        self._unsaved.known = [(path.base_name,) for path in paths]

    def known(self) -> set[StorePath]:
        """What was built here at the last look."""
        return {StorePath(str(path)) for (path,) in self._file.rows("SELECT path FROM known")}

    def totals(self, since: float) -> Mapping[str, Totals]:
        """What was posted to each cache since then."""
        query = (
            "SELECT cache, count(*), sum(nar_bytes), sum(file_bytes)"
            " FROM posting WHERE posted_at >= ? GROUP BY cache"
        )
        return {
            str(cache): Totals(paths, nar_bytes, file_bytes)
            for cache, paths, nar_bytes, file_bytes in self._file.rows(query, (since,))
            if isinstance(paths, int) and isinstance(nar_bytes, int) and isinstance(file_bytes, int)
        }

    def prune(self, now: float) -> None:
        """Let go of what is too old to matter."""
        self._unsaved.pruned_at = now

    def save(self) -> None:
        """Commit what was gathered; what cannot be written now is kept for the next time."""
        if self._unsaved != _Unsaved() and self._file.write(self._unsaved.statements()):
            self._unsaved = _Unsaved()

    def close(self) -> None:
        """Save, and let go of the file."""
        self.save()
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _storable(text: str) -> str:
    """Nix and servers say what they like, and SQLite takes no surrogates."""
    return text.encode(errors="replace").decode()

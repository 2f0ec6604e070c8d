"""The ledger's SQLite file: opened, written in one go, and begun anew where it is no good.

It is memory and no truth, so nothing that is wrong with it may hold anything up: what cannot be
read is not known, what cannot be written now is written later, and a file that can be neither is
put aside.
"""

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from narpost.errors import UsageError

_SCHEMA = Path(__file__).with_name("ledger.sql")
# Raised with each change of the schema: a file by another is put aside.
_VERSION = 1
# The loop stands still meanwhile, so it is short: what is not written now is written next time.
_BUSY_SECONDS = 0.2
_PASSING = frozenset(
    (
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PERM,
    )
)

# Python cannot always decode the words in which SQLite tells what is broken.
_BROKEN = (sqlite3.DatabaseError, UnicodeDecodeError)

Row = tuple[str | int | float, ...]
Statements = Iterable[tuple[str, Sequence[Row]]]


class LedgerFile:
    """*file*, opened to write or only to look at; a reader without a file sees nothing."""

    def __init__(self, file: Path, *, is_writer: bool) -> None:
        self._file = file
        self._database = self._open_to_write() if is_writer else self._open_to_read()

    def rows(self, query: str, values: Row = ()) -> list[tuple[object, ...]]:
        """What *query* finds; nothing where that cannot be read."""
        try:
            return self._database.execute(query, values).fetchall()
        except _BROKEN:
            return []

    def write(self, statements: Statements) -> bool:
        """Carry out all of *statements* or none; says whether it could be done now."""
        carried_out = list(statements)
        try:
            if not self._file.exists():
                self._reopen()
            self._carry_out(carried_out)
        except (UsageError, OSError):
            return False
        except _BROKEN as error:
            if is_passing(error):
                return False
            return self._write_anew(carried_out)
        return True

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()

    def _write_anew(self, statements: Statements) -> bool:
        try:
            self._put_aside()
            self._reopen()
            self._carry_out(statements)
        except (UsageError, OSError, *_BROKEN):
            return False
        return True

    def _carry_out(self, statements: Statements) -> None:
        with _transaction(self._database):
            for statement, rows in statements:
                self._database.executemany(statement, rows)

    def _reopen(self) -> None:
        """The new one first: without it, the old one may still be read."""
        database = self._open_to_write()
        self._database.close()
        self._database = database

    def _open_to_write(self) -> sqlite3.Connection:
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            try:
                return _connect(self._file)
            except _BROKEN as error:
                if is_passing(error):
                    raise
                self._put_aside()
                return _connect(self._file)
        except (OSError, *_BROKEN) as error:
            raise UsageError(
                f"cannot write to {self._file}: {error}",
                "set state in the section [queue] to a folder that the daemon may write to",
            ) from error

    def _open_to_read(self) -> sqlite3.Connection:
        with contextlib.suppress(OSError, *_BROKEN):
            return _tolerant(
                sqlite3.connect(f"{self._file.as_uri()}?mode=ro", uri=True, timeout=_BUSY_SECONDS)
            )
        return sqlite3.connect(":memory:")

    def _put_aside(self) -> None:
        """Also what belongs to it: a new file must not take that for its own."""
        for suffix in ("-wal", "-shm"):
            Path(f"{self._file}{suffix}").unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):
            self._file.replace(self._file.with_suffix(".corrupt"))


def is_passing(error: Exception) -> bool:
    """Whether the file is sound, and only cannot be used now."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    return code & 0xFF in _PASSING


def _connect(file: Path) -> sqlite3.Connection:
    database = _tolerant(sqlite3.connect(file, timeout=_BUSY_SECONDS, isolation_level=None))
    try:
        ((version,),) = database.execute("PRAGMA user_version")
        has_tables = bool(database.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone())
        if version != _VERSION and has_tables:
            raise sqlite3.DatabaseError(f"it is by another version, {version}")
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        database.executescript(_SCHEMA.read_text())
        database.execute(f"PRAGMA user_version = {_VERSION}")
    except BaseException:
        database.close()
        raise
    return database


def _tolerant(database: sqlite3.Connection) -> sqlite3.Connection:
    database.text_factory = lambda data: data.decode(errors="replace")
    return database


@contextlib.contextmanager
def _transaction(database: sqlite3.Connection) -> Iterator[None]:
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise
    database.execute("COMMIT")

"""Objects in a folder, for `file://`: plain files, each moved into its place when it is whole.

The object-store library can do this too, but hands each call to a thread of its own and back,
which costs more than the call itself (docs/decisions/0006).
"""

import asyncio
import contextlib
import itertools
import os
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from narpost.cache.bucket import Put, Refusal
from narpost.errors import CacheRefused, CacheUnreachable, Passing, UsageError
from narpost.nix.store_url import StoreUrl

T = TypeVar("T")

# What is not whole yet lies here: on the same disk, and where no reader looks.
INCOMING = ".incoming"
# No file takes so long to write: what is older was left by somebody who was killed.
LEFT_OVER_SECONDS = 86400.0

_HINT = "the cache must be a folder that the daemon may write to"


class FolderBucket:
    """Keeps the promise of `Bucket` in *folder*; content types are not kept.

    No call waits, so `each` hands a whole batch to a thread: always to the same one, since several
    would only wait for each other's turn at Python's lock.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self._folder = str(folder)
        self._incoming_folder = f"{folder}/{INCOMING}"
        self._mark = secrets.token_hex(8)
        self._numbers = itertools.count()
        self._thread = ThreadPoolExecutor(1, "folder")

    async def each(self, calls: Iterable[Coroutine[Any, Any, T]]) -> list[T | Exception]:
        """Make several *calls* one after another; each has its own result or error."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, lambda: list(map(_finish, calls)))

    async def probe(self) -> None:
        """See that the folder is there, and clear away what somebody was killed over."""
        self._check()
        with self._translated("clear", INCOMING):
            _clear(Path(self._incoming_folder))

    async def size(self, key: str) -> int | None:
        """The file's size in bytes; nothing when it is not there."""
        with self._translated("ask for", key):
            try:
                found = os.stat(self._place(key))
            except (FileNotFoundError, NotADirectoryError):
                return None
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    async def names(self, pages: int) -> set[str] | None:
        """Nothing: one name after another is as quickly asked for."""
        return None

    async def get(self, key: str) -> bytes | None:
        """A small file's bytes; nothing when it is not there."""
        with self._translated("read", key):
            try:
                return _read(self._place(key))
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                return None

    async def put(self, key: str, body: bytes | Path, content_type: str) -> Put:
        """Store a file, in place of any that is there; it is there then."""
        with self._translated("write", key), self._incoming(body) as incoming:
            self._move(os.replace, incoming, key)
        return Put.PROVEN

    async def put_new(self, key: str, body: bytes, content_type: str) -> Put:
        """Store a file unless one is there."""
        if await self.size(key) is not None:
            return Put.EXISTS
        with self._translated("write", key), self._incoming(body) as incoming:
            try:
                self._move(os.link, incoming, key)
            except FileExistsError:
                return Put.EXISTS
        return Put.PROVEN

    async def end_uploads(self, keys: Iterable[str]) -> None:
        """There are none: `probe` clears what is not whole."""

    @contextmanager
    def _incoming(self, body: bytes | Path) -> Iterator[str]:
        """*body* as a file that nobody sees, and that is gone when the context ends."""
        incoming = f"{self._incoming_folder}/{self._mark}-{next(self._numbers)}"
        try:
            try:
                _fill(incoming, body)
            except FileNotFoundError:
                self._make(self._incoming_folder)
                _fill(incoming, body)
            yield incoming
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(incoming)

    def _move(self, move: Callable[[str, str], None], incoming: str, key: str) -> None:
        place = self._place(key)
        try:
            move(incoming, place)
        except FileNotFoundError:
            self._make(os.path.dirname(place))
            move(incoming, place)

    def _place(self, key: str) -> str:
        return f"{self._folder}/{key}"

    def _make(self, folder: str) -> None:
        """Make a folder within ours."""
        self._check()
        os.makedirs(folder, exist_ok=True)

    def _check(self) -> None:
        """Where the folder is gone, so may be the disk that it was on: we do not make it anew."""
        if not os.path.isdir(self._folder):
            raise CacheRefused(f"{self.name} does not exist", _HINT)

    @contextmanager
    def _translated(self, doing: str, key: str) -> Iterator[None]:
        try:
            yield
        except PermissionError as error:
            message = f"cannot {doing} {key} at {self.name}: access denied"
            raise Refusal(message, _HINT, "AccessDenied") from error
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise CacheUnreachable(f"cannot {doing} {key} at {self.name}: {reason}") from error


def open_folder(url: StoreUrl) -> FolderBucket:
    """The folder that *url* names, made if it is missing."""
    folder = Path(url.location)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"cannot use the folder {folder} as a cache: {(error.strerror or str(error)).lower()}",
            "name a folder that the daemon may write to",
        ) from error
    return FolderBucket(folder, str(url))


def _clear(folder: Path) -> None:
    for left_over in folder.glob("*"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - left_over.stat().st_mtime > LEFT_OVER_SECONDS:
                left_over.unlink()


def _read(file: str) -> bytes:
    with open(file, "rb") as source:
        return source.read()


def _fill(file: str, body: bytes | Path) -> None:
    if isinstance(body, bytes):
        with open(file, "wb") as sink:
            sink.write(body)
        return
    if not body.exists():
        raise Passing(f"the packed file {body} went away before it was posted")
    try:
        os.link(body, file)
    except FileNotFoundError:
        raise
    except OSError:  # Another disk, or one that knows no links.
        shutil.copyfile(body, file)


def _finish(call: Coroutine[Any, Any, T]) -> T | Exception:
    """Run a coroutine that never waits."""
    try:
        call.send(None)
    except StopIteration as end:
        value: T = end.value
        return value
    except Exception as error:  # It is a result, like any other.
        return error
    call.close()
    raise RuntimeError("a folder's call waited")

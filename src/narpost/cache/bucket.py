"""What a cache is kept in: the promise, and the one error that its bodies have of their own."""

from collections.abc import Coroutine, Iterable
from enum import Enum
from pathlib import Path
from typing import Any, Protocol, TypeVar

from narpost.errors import CacheRefused

T = TypeVar("T")


class Put(Enum):
    """What came of putting an object."""

    # Another was there, and stays.
    EXISTS = "exists"
    STORED = "stored"
    # The answer shows by a checksum that these very bytes arrived.
    PROVEN = "proven"


class Bucket(Protocol):
    """A flat set of objects by key; *name* is its URL without parameters, for messages.

    An object is there whole or not at all, and every call may be repeated. A bucket that does
    not answer or fails is `CacheUnreachable`, one that refuses us is `CacheRefused`: an absence
    is told only where it is certain.
    """

    name: str

    async def each(self, calls: Iterable[Coroutine[Any, Any, T]]) -> list[T | Exception]:
        """Make several *calls* of this bucket at once; each has its own result or error."""

    async def probe(self) -> None:
        """Learn how this bucket answers; one that cannot be used is an error."""

    async def size(self, key: str) -> int | None:
        """The object's size in bytes; nothing when it is not there."""

    async def names(self, pages: int) -> set[str] | None:
        """The names outside of any `folder/`, if they fit into *pages*; else nothing.

        Nothing also where it is as quick to ask for one name after another.
        """

    async def get(self, key: str) -> bytes | None:
        """A small object's bytes; nothing when it is not there."""

    async def put(self, key: str, body: bytes | Path, content_type: str) -> Put:
        """Store an object, in place of any that is there; a file's name stays the caller's."""

    async def put_new(self, key: str, body: bytes, content_type: str) -> Put:
        """Store an object unless one is there.

        Some servers ignore the condition, and replace it.
        """

    async def end_uploads(self, keys: Iterable[str]) -> None:
        """End uploads in parts of *keys* that were begun and never finished."""


class Refusal(CacheRefused):
    """A refusal with the server's *code*, which a HEAD request does not get."""

    def __init__(self, message: str, hint: str, code: str) -> None:
        super().__init__(message, hint)
        self.code = code
        self.is_about_one_object = code in {"", "AccessDenied"}

"""Objects in a bucket of a server: the only file that knows the object-store library.

Its errors become ours here. An absence is an absence only when the server says so: a refusal,
a failure or a time-out is an error.
"""

import asyncio
import hashlib
import os
import re
import resource
import time
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import ObjectStore, S3Store

from narpost.cache import aws
from narpost.cache.bucket import Put, Refusal
from narpost.cache.pace import Pace
from narpost.errors import CacheBusy, CacheRefused, CacheUnreachable, Passing
from narpost.nix.store_url import StoreUrl

if TYPE_CHECKING:
    from obstore import PutResult
    from obstore.store import RetryConfig

T = TypeVar("T")

# S3 takes at most 10,000 parts of one object; parts of 16 MiB allow for 156 GiB.
_PART_BYTES = 16 << 20
# Each request under way has a file open: this many are left for all else.
_OTHER_FILES = 48
_REQUESTS_AT_ONCE = 256
_PARTS_AT_ONCE = 4
# For a whole request. Four parts at once then need 75 KB/s at least.
_REQUEST_TIMEOUT = timedelta(minutes=1)
_PART_TIMEOUT = timedelta(minutes=15)
_CONNECT_TIMEOUT = timedelta(seconds=10)
# Retries are ours to make: the library gets one, for a connection that went stale.
_RETRIES: "RetryConfig" = {"max_retries": 1, "retry_timeout": timedelta(seconds=10)}

# What servers give at a time.
PAGE_KEYS = 1000

_ABSENT_NAME = "narpost-asks-what-a-missing-object-looks-like"
_S3_CODE = re.compile(r"<Code>(\w+)</Code>")
_FORBIDDEN = re.compile(r"status code: 40[13]\b")
_STATUS = re.compile(r"status code: (\d+ [A-Za-z ]+)")
_NOT_SENT = re.compile(r"Error performing \w+ (\w+://[^/ ]+).*HTTP error: error sending request")
# MinIO adds a word to SlowDown.
_BUSY = re.compile(r"status code: 429\b|<Code>(SlowDown\w*|TooManyRequests)</Code>")
_WRONG_CREDENTIALS = frozenset(
    "InvalidAccessKeyId SignatureDoesNotMatch InvalidToken ExpiredToken InvalidSecurity".split()
)


class ObjectBucket:
    """Keeps the promise of `Bucket` with the library's *store*, at some *pace*.

    Large files go to *patient*.
    """

    def __init__(
        self,
        store: ObjectStore,
        name: str,
        pace: Pace | None = None,
        patient: ObjectStore | None = None,
        uploads: aws.Uploads | None = None,
    ) -> None:
        self.name = name
        self._store = store
        self._pace = pace or Pace(clock=time.monotonic)
        self._patient = patient or store
        self._turns = asyncio.Semaphore(requests_at_once())
        self._uploads = uploads
        # A bucket that we may not list answers 403 for a missing object; `probe` finds out.
        self._hides_missing = False

    async def each(self, calls: Iterable[Coroutine[Any, Any, T]]) -> list[T | Exception]:
        """Make several *calls* of this bucket at once; each has its own result or error."""
        results = await asyncio.gather(*calls, return_exceptions=True)
        return [_no_base(result) for result in results]

    async def probe(self) -> None:
        """Learn how this bucket answers for a missing object; wrong credentials are an error."""
        try:
            await self.get(_ABSENT_NAME)
        except Refusal as refusal:
            if refusal.code != "AccessDenied":
                raise
            self._hides_missing = True

    async def size(self, key: str) -> int | None:
        """The object's size in bytes; nothing when it is not there."""
        try:
            async with self._turn("ask for", key):
                return (await obstore.head_async(self._store, key))["size"]
        except (FileNotFoundError, CacheRefused) as error:
            self._check_absence(error)
            return None

    async def names(self, pages: int) -> set[str] | None:
        """The names outside of any `folder/`, if they fit into *pages* of PAGE_KEYS; else nothing.

        Nothing also from a bucket that we may not list.
        """
        try:
            with self._translated("list", "the bucket"):
                return await self._names(pages)
        except CacheRefused:
            return None

    async def _names(self, pages: int) -> set[str] | None:
        names: set[str] = set()
        offset: str | None = ""
        while offset is not None:
            listing = obstore.list(self._store, offset=offset or None, chunk_size=PAGE_KEYS)
            offset = None
            async for page in listing:
                if not pages:
                    return None
                pages -= 1
                for key in (meta["path"] for meta in page):
                    folder, slash, _ = key.partition("/")
                    if slash:
                        # Pass over the folder: "0" follows "/" in the order of keys.
                        offset = f"{folder}0"
                        break
                    names.add(key)
                if offset is not None:
                    break
        return names

    async def get(self, key: str) -> bytes | None:
        """A small object's bytes; nothing when it is not there."""
        try:
            async with self._turn("read", key):
                return bytes(await (await obstore.get_async(self._store, key)).bytes_async())
        except (FileNotFoundError, CacheRefused) as error:
            self._check_absence(error)
            return None

    async def put(self, key: str, body: bytes | Path, content_type: str) -> Put:
        """Store an object, in place of any that is there; a large file goes in parts."""
        async with self._turn("write", key, body):
            answer = await obstore.put_async(
                self._store if isinstance(body, bytes) else self._patient,
                key,
                body if isinstance(body, bytes) else self._pace.body(body),
                attributes={"Content-Type": content_type},
                chunk_size=_PART_BYTES,
                max_concurrency=min(_PARTS_AT_ONCE, requests_at_once()),
            )
        return _put(body, answer)

    async def put_new(self, key: str, body: bytes, content_type: str) -> Put:
        """Store an object unless one is there; some servers ignore the condition."""
        try:
            async with self._turn("write", key, body):
                answer = await obstore.put_async(
                    self._store,
                    key,
                    body,
                    attributes={"Content-Type": content_type},
                    mode="create",
                )
        except (AlreadyExistsError, PreconditionError):
            return Put.EXISTS
        return _put(body, answer)

    async def end_uploads(self, keys: Iterable[str]) -> None:
        """End uploads in parts of *keys*; the library has no way to find them."""
        if self._uploads:
            await asyncio.to_thread(self._uploads.end, list(keys))

    def _check_absence(self, error: Exception) -> None:
        is_absence = isinstance(error, FileNotFoundError)
        # A HEAD gets no code; whoever says that it does not know us tells of no object.
        is_hidden = isinstance(error, Refusal) and error.code in {"", "AccessDenied"}
        if not is_absence and not (self._hides_missing and is_hidden):
            raise error

    @asynccontextmanager
    async def _turn(self, doing: str, key: str, body: bytes | Path = b"") -> AsyncIterator[None]:
        """One request, when the pace and those under way allow it."""
        await self._pace.request(len(body) if isinstance(body, bytes) else 0)
        async with self._turns:
            with self._translated(doing, key, body):
                yield

    @contextmanager
    def _translated(self, doing: str, key: str, body: bytes | Path = b"") -> Iterator[None]:
        """Turn the library's errors into ours; a missing object stays `FileNotFoundError`."""
        try:
            yield
        except (AlreadyExistsError, PreconditionError):
            raise
        except FileNotFoundError as error:
            if isinstance(body, Path) and not body.exists():
                raise Passing(f"the packed file {body} went away before it was posted") from error
            if "NoSuchBucket" in str(error):
                raise self._no_bucket() from error
            if doing == "write":
                # Somebody ended our upload in parts; it can begin anew.
                raise self._unreachable(f"cannot {doing} {key}", str(error)) from error
            raise
        except (PermissionDeniedError, UnauthenticatedError) as error:
            raise self._refused(f"cannot {doing} {key}", str(error)) from error
        except (BaseError, OSError, ValueError) as error:
            # For a listing, the library does not tell a refusal from any other failure.
            if _FORBIDDEN.search(str(error)):
                raise self._refused(f"cannot {doing} {key}", str(error)) from error
            raise self._unreachable(f"cannot {doing} {key}", str(error)) from error

    def _unreachable(self, what: str, text: str) -> CacheUnreachable:
        if _BUSY.search(text):
            return CacheBusy(f"{self.name} asks us to go slower ({_reason(text)})")
        if match := _NOT_SENT.search(text):
            return CacheUnreachable(
                f"cannot reach {self.name} at {match[1]}",
                "check endpoint and scheme in the cache's url, and the network",
            )
        return CacheUnreachable(f"{what} at {self.name}: {_reason(text)}")

    def _no_bucket(self) -> CacheRefused:
        return CacheRefused(
            f"{self.name} does not exist", "create the bucket, or mend the cache's url"
        )

    def _refused(self, what: str, text: str) -> "Refusal":
        match = _S3_CODE.search(text)
        code = match[1] if match else ""
        if code == "RequestTimeTooSkewed":
            return Refusal(
                f"{self.name} says that this machine's clock is wrong",
                "set the clock; requests are signed with the time",
                code,
            )
        if code in _WRONG_CREDENTIALS:
            return Refusal(
                f"{self.name} does not accept our credentials ({code})",
                "check the profile in the cache's url, ~/.aws/credentials, or AWS_ACCESS_KEY_ID",
                code,
            )
        return Refusal(
            f"{what} at {self.name}: access denied",
            "the credentials need s3:GetObject and s3:PutObject on the bucket's objects, "
            "and s3:ListBucket on the bucket",
            code,
        )


def _put(body: bytes | Path, answer: "PutResult") -> Put:
    """Most servers give the MD5 of what they stored as ETag, unless they encrypt it."""
    if isinstance(body, Path):
        return Put.STORED
    md5 = hashlib.md5(body, usedforsecurity=False).hexdigest()
    return Put.PROVEN if (answer["e_tag"] or "").strip('"') == md5 else Put.STORED


def _no_base(result: T | BaseException) -> T | Exception:
    if isinstance(result, BaseException) and not isinstance(result, Exception):
        raise result
    return result


def requests_at_once() -> int:
    """How many requests may be under way, by what this process may open."""
    may_open, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Connections that rest are kept, and there are two pools of them.
    return max(2, min(_REQUESTS_AT_ONCE, (may_open - _OTHER_FILES) // 3))


def open_s3(url: StoreUrl, pace: Pace | None = None) -> ObjectBucket:
    """The S3 bucket that *url* names."""
    parameters = url.parameters
    credentials = aws.Credentials(parameters.get("profile"), os.environ)
    credentials.check()
    endpoint = aws.endpoint(parameters)
    options: dict[str, Any] = {"endpoint": endpoint} if endpoint else {}
    # As Nix: a bucket of AWS by its own host name, any other by its path. A dot in the name
    # would not fit the certificate.
    is_by_host = endpoint is None and "." not in url.location

    def store(time_out: timedelta) -> S3Store:
        return S3Store(
            url.location,
            region=aws.region(credentials, parameters),
            virtual_hosted_style_request=is_by_host,
            credential_provider=credentials,
            client_options={
                "allow_http": aws.is_plain_http(parameters),
                "timeout": time_out,
                "connect_timeout": _CONNECT_TIMEOUT,
                "pool_max_idle_per_host": str(requests_at_once()),
            },
            retry_config=_RETRIES,
            **options,
        )

    uploads = aws.Uploads(credentials, url.location, parameters)
    return ObjectBucket(store(_REQUEST_TIMEOUT), str(url), pace, store(_PART_TIMEOUT), uploads)


def _reason(text: str) -> str:
    """The one clause of the library's message that tells a person something."""
    first = text.partition("\n\nDebug source:")[0]
    for pattern in (_S3_CODE, _STATUS):
        if match := pattern.search(first):
            return match[1].strip()
    return first.splitlines()[0] if first else "it gave no reason"

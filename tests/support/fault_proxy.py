"""A proxy on loopback between a client and a real S3 server, which does the harm that a test asks.

What it passes on stays byte for byte the same, and signatures cover the Host header, which names
the proxy: so the server finds them right.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Self
from urllib.parse import unquote, urlsplit

from support.http_messages import Connection, Head

# More connections wait for their turn.
CONNECTIONS = 512
# Delays and stalls are over after this time, whatever the test does.
LONGEST_SECONDS = 60.0
START_SECONDS = 10.0
# Parameters that make a request another kind of request.
_TELLING = ("list-type", "uploads", "partNumber", "uploadId")


@dataclass(frozen=True, slots=True)
class Delay:
    """Pass the request on after *seconds*."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer in the server's place, which never hears of the request; *code* is one of S3's."""

    status: HTTPStatus
    code: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)

    def render(self, method: str) -> bytes:
        """The answer to a request by *method*; only HEAD gets no body."""
        body = f"<?xml version='1.0'?><Error><Code>{self.code}</Code></Error>" if self.code else ""
        headers = {"Content-Length": str(len(body)), "ETag": '"0"', **self.headers}
        lines = [f"HTTP/1.1 {self.status.value} {self.status.phrase}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return "\r\n".join([*lines, "", "" if method == "HEAD" else body]).encode()


@dataclass(frozen=True, slots=True)
class Reset:
    """Pass on *body_bytes* of the request, or all if it has fewer; then reset both sides."""

    body_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Stall:
    """Read nothing more and answer nothing until the fault ends; then reset."""


@dataclass(frozen=True, slots=True)
class Truncate:
    """Pass the request on, but only half of the answer back; then close."""


Action = Delay | Answer | Reset | Stall | Truncate


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asks for: *key* is the object's, and empty for the bucket itself.

    *kind* is the method, with the parameter that tells more, if any: `PUT`, `PUT partNumber`.
    """

    kind: str
    key: str

    @classmethod
    def parse(cls, first_line: str) -> Self:
        """Read the first line of a request, to a bucket that is named in its path."""
        method, target, _version = first_line.split()
        where = urlsplit(target)
        parameters = {each.partition("=")[0] for each in where.query.split("&")}
        telling = [name for name in _TELLING if name in parameters]
        _root, _bucket, *key = where.path.split("/", 2)
        return cls(" ".join([method, *telling[:1]]), unquote("".join(key)))

    @property
    def method(self) -> str:
        """GET, HEAD, PUT, and so on."""
        return self.kind.split()[0]


Hits = Callable[[Request], bool]


@dataclass(frozen=True, slots=True)
class Fault:
    """*action* happens to requests that *hits*; *met* are those to which it did."""

    action: Action
    hits: Hits
    met: list[Request] = field(default_factory=list)
    is_over: asyncio.Event = field(default_factory=asyncio.Event)


class FaultProxy:
    """Listens at *endpoint*; *requests* are all that came, in their order."""

    def __init__(self, server: tuple[str, int]) -> None:
        self.endpoint = ""
        self.requests: list[Request] = []
        self._server = server
        self._fault: Fault | None = None
        self._slots = asyncio.Semaphore(CONNECTIONS)
        self._loop: asyncio.AbstractEventLoop
        self._work: asyncio.Task[None] | None = None

    def count(self, kind: str) -> int:
        """How many requests of *kind* came."""
        return sum(request.kind == kind for request in self.requests)

    def begin(self, action: Action, hits: Hits = lambda _request: True) -> Fault:
        """From now on *action* happens to each request that *hits*, and no other fault."""
        self.end()
        self._fault = Fault(action, hits)
        return self._fault

    def end(self) -> None:
        """End the fault, if there is one."""
        fault, self._fault = self._fault, None
        if fault is not None:
            self._loop.call_soon_threadsafe(fault.is_over.set)

    async def work(self, started: "Future[None]") -> None:
        """Serve until `stop`."""
        self._loop, self._work = asyncio.get_running_loop(), asyncio.current_task()
        with suppress(asyncio.CancelledError):
            async with asyncio.TaskGroup() as connections:

                def accept(*streams: Any) -> None:
                    connections.create_task(self._serve(Connection(*streams)))

                listener = await asyncio.start_server(accept, "127.0.0.1", 0)
                self.endpoint = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
                started.set_result(None)
                try:
                    await self._loop.create_future()
                finally:
                    listener.close()

    def stop(self) -> None:
        """Make an end of `work`, from another thread."""
        if self._work is not None:
            self._loop.call_soon_threadsafe(self._work.cancel)

    async def _serve(self, client: Connection) -> None:
        # A side goes away, or a fault was that it does.
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            async with self._slots, client, await Connection.open(self._server) as server:
                while head := await client.read_head():
                    await self._exchange(head, client, server)

    async def _exchange(self, head: Head, client: Connection, server: Connection) -> None:
        request = Request.parse(head.first_line)
        self.requests.append(request)
        fault = self._fault
        if fault is None or not fault.hits(request):
            await _pass_on(head, client, server)
        else:
            fault.met.append(request)
            await _harm(fault, head, client, server)


async def _harm(fault: Fault, head: Head, client: Connection, server: Connection) -> None:
    method = head.first_line.split()[0]
    match fault.action:
        case Delay(seconds):
            await asyncio.sleep(min(seconds, LONGEST_SECONDS))
            await _pass_on(head, client, server)
        case Answer() as answer:
            async for _ in client.read_request_body(head):
                pass
            await client.send(answer.render(method))
        case Reset(body_bytes):
            await server.send(head.raw)
            async for data in client.read_request_body(head):
                await server.send(data[:body_bytes])
                body_bytes -= len(data)
                if body_bytes <= 0:
                    break
            client.reset()
            server.reset()
            raise ConnectionResetError
        case Stall():
            async with asyncio.timeout(LONGEST_SECONDS):
                await fault.is_over.wait()
            client.reset()
            raise ConnectionResetError
        case Truncate():
            await _send_request(head, client, server)
            start, body = await server.read_answer(method)
            await client.send(start + body[: len(body) // 2] if body else start[: len(start) // 2])
            raise ConnectionResetError


async def _pass_on(head: Head, client: Connection, server: Connection) -> None:
    await _send_request(head, client, server)
    start, body = await server.read_answer(head.first_line.split()[0])
    await client.send(start + body)


async def _send_request(head: Head, client: Connection, server: Connection) -> None:
    await server.send(head.raw)
    async for data in client.read_request_body(head):
        await server.send(data)


@contextmanager
def running(endpoint: str) -> Iterator[FaultProxy]:
    """Run a proxy before the server at *endpoint* until the block ends."""
    where = urlsplit(endpoint)
    proxy = FaultProxy((where.hostname or "", where.port or 80))
    started: Future[None] = Future()
    with ThreadPoolExecutor(1, "fault-proxy") as thread:
        work = thread.submit(asyncio.run, proxy.work(started))
        started.result(START_SECONDS)
        try:
            yield proxy
        finally:
            proxy.stop()
            work.result(START_SECONDS)

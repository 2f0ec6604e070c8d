"""As much of HTTP/1.1 as tells one message from the next; all is kept byte for byte."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Self

READ_BYTES = 64 << 10
_END = b"\r\n"
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_LINGER_NOT_AT_ALL = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Head:
    """First line and headers of a message; *raw* is what came, names of headers are lower-case."""

    raw: bytes
    first_line: str
    headers: Mapping[str, str]

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Read what ends with an empty line."""
        first_line, *lines = raw.decode("latin-1").split("\r\n")[:-2]
        pairs = (line.partition(":") for line in lines)
        return cls(raw, first_line, {name.lower(): value.strip() for name, _colon, value in pairs})

    @property
    def status(self) -> int:
        """That of an answer."""
        return int(self.first_line.split()[1])


@dataclass(frozen=True, slots=True)
class Connection:
    """One side of an exchange; a side that ends within a message is an error."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @classmethod
    async def open(cls, address: tuple[str, int]) -> Self:
        """Connect to a server."""
        return cls(*await asyncio.open_connection(*address))

    async def read_head(self) -> Head | None:
        """The next message's; none if the other side closed where it may."""
        try:
            return Head.parse(await self.reader.readuntil(_END + _END))
        except asyncio.IncompleteReadError as error:
            if error.partial:
                raise
            return None

    async def read_request_body(self, head: Head) -> AsyncIterator[bytes]:
        """The raw bytes that follow *head*; asks for them where the client waits for that."""
        if head.headers.get("expect", "").lower() == "100-continue":
            await self.send(_CONTINUE)
        async for data in self._read_body(head):
            yield data

    async def read_answer(self, method: str) -> tuple[bytes, bytes]:
        """Head and body of the answer to a request by *method*, both raw."""
        head = await self.read_head()
        while head is not None and head.status < 200:
            head = await self.read_head()
        if head is None:
            raise ConnectionResetError("closed without an answer")
        is_bare = method == "HEAD" or head.status in {204, 304}
        parts = [] if is_bare else [data async for data in self._read_body(head)]
        return head.raw, b"".join(parts)

    async def send(self, data: bytes) -> None:
        """Send *data*, as fast as the other side takes it."""
        self.writer.write(data)
        await self.writer.drain()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        """Close; what was sent before still arrives."""
        self.writer.close()

    def reset(self) -> None:
        """Cut the connection off, as a machine on the way does that lost its memory."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT_AT_ALL)
        self.writer.transport.abort()

    @property
    def _socket(self) -> socket.socket:
        found: socket.socket = self.writer.get_extra_info("socket")
        return found

    async def _read_body(self, head: Head) -> AsyncIterator[bytes]:
        if head.headers.get("transfer-encoding", "").lower() == "chunked":
            async for data in self._read_chunks():
                yield data
            return
        left = int(head.headers.get("content-length", "0"))
        while left:
            data = await self.reader.read(min(left, READ_BYTES))
            if not data:
                raise ConnectionResetError("closed within a body")
            left -= len(data)
            yield data

    async def _read_chunks(self) -> AsyncIterator[bytes]:
        while size_line := await self.reader.readuntil(_END):
            yield size_line
            size = int(size_line.partition(b";")[0], 16)
            if not size:
                break
            yield await self.reader.readexactly(size + len(_END))
        while (trailer := await self.reader.readuntil(_END)) != _END:
            yield trailer
        yield _END

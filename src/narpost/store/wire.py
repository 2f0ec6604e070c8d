"""Framing of the worker protocol: little-endian 64-bit numbers, strings padded to eight bytes.

Source: `libutil/serialise.cc` of Nix and Lix.
"""

import contextlib
import select
import socket
import struct
from collections.abc import Iterable, Iterator

from narpost.errors import StoreUnreachable

# A daemon that sends a longer string than this does not speak our protocol.
STRING_LIMIT = 1 << 26
CHUNK_BYTES = 1 << 20
_BUFFER_BYTES = 1 << 16

_NUMBER = struct.Struct("<Q")


class EndedEarly(StoreUnreachable):
    """The stream ended before all that was announced."""


class Wire:
    """Numbers and strings over a stream socket; writes wait until `flush`.

    A time-out, an end of the stream and any other failure are `StoreUnreachable`; the socket's
    own time-out bounds each wait.
    """

    def __init__(self, stream: socket.socket) -> None:
        self._socket = stream
        self._unsent = bytearray()
        self._received = b""
        self._position = 0
        self._has_hung_up = False

    def write_number(self, number: int) -> None:
        """Queue one number."""
        self._unsent += _NUMBER.pack(number)

    def write_string(self, text: str) -> None:
        """Queue one string."""
        data = text.encode()
        self._unsent += _NUMBER.pack(len(data)) + data + bytes(-len(data) % 8)

    def write_strings(self, texts: Iterable[str]) -> None:
        """Queue a list of strings."""
        items = list(texts)
        self.write_number(len(items))
        for text in items:
            self.write_string(text)

    def flush(self) -> None:
        """Send what is queued."""
        try:
            self._socket.sendall(self._unsent)
        except OSError as error:
            raise _broken(error) from error
        self._unsent.clear()

    def read_number(self) -> int:
        """The next number."""
        number: int = _NUMBER.unpack(self._read(8))[0]
        return number

    def read_string(self) -> str:
        """The next string; bytes that are not UTF-8 are kept as surrogates."""
        size = self.read_number()
        if size > STRING_LIMIT:
            raise StoreUnreachable(f"the Nix daemon announced a string of {size} bytes")
        return self._read(size + -size % 8)[:size].decode(errors="surrogateescape")

    def read_strings(self) -> list[str]:
        """The next list of strings."""
        return [self.read_string() for _ in range(self.read_number())]

    def read_chunks(self, size: int, silence_seconds: float) -> Iterator[bytes]:
        """The next *size* bytes, unframed, in chunks of up to 1 MiB.

        After a silence we say that nothing more will be asked: a peer that has no more to send
        then hangs up, which is `EndedEarly`, and one that is slow goes on.
        """
        while size:
            chunk = self._take(size) or self._receive_patiently(size, silence_seconds)
            if not chunk:
                raise EndedEarly("the Nix daemon closed the connection in the middle of a NAR")
            size -= len(chunk)
            yield chunk

    @property
    def has_hung_up(self) -> bool:
        """Whether we have said that nothing more will be asked."""
        return self._has_hung_up

    def is_quiet(self) -> bool:
        """Whether nothing has come in unasked, such as the end of the stream."""
        return not self._comes_within(0)

    def hang_up(self) -> None:
        """Say that nothing more will be asked."""
        self._has_hung_up = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Let go of the socket."""
        self._socket.close()

    def _read(self, size: int) -> bytes:
        end = self._position + size
        while len(self._received) < end:
            more = self._receive(_BUFFER_BYTES)
            if not more:
                raise StoreUnreachable(
                    "the Nix daemon closed the connection in the middle of an answer"
                )
            self._received = self._received[self._position :] + more
            end -= self._position
            self._position = 0
        data = self._received[self._position : end]
        self._position = end
        return data

    def _take(self, size: int) -> bytes:
        """Up to *size* bytes that have come already."""
        data = self._received[self._position : self._position + size]
        self._position += len(data)
        return data

    def _receive_patiently(self, size: int, silence_seconds: float) -> bytes:
        if self._has_hung_up or self._comes_within(silence_seconds):
            return self._receive(min(size, CHUNK_BYTES))
        self.hang_up()
        return self._receive(min(size, CHUNK_BYTES))

    def _comes_within(self, seconds: float) -> bool:
        listening = select.poll()
        listening.register(self._socket, select.POLLIN)
        return bool(listening.poll(seconds * 1000))

    def _receive(self, size: int) -> bytes:
        try:
            return self._socket.recv(size)
        except OSError as error:
            raise _broken(error) from error


def _broken(error: OSError) -> StoreUnreachable:
    if isinstance(error, TimeoutError):
        return StoreUnreachable("the Nix daemon has not answered in time")
    return StoreUnreachable(f"the connection to the Nix daemon broke: {error.strerror or error}")

"""Framing of the worker protocol: little-endian 64-bit numbers, strings padded to eight bytes.

Source: `libutil/serialise.cc` of Nix and Lix.
"""

import select
import socket
import struct
from collections.abc import Iterable, Iterator

from narpost.errors import StoreUnreachable

# A daemon that sends a longer string than this does not speak our protocol.
STRING_LIMIT = 1 << 26
CHUNK_BYTES = 1 << 20

_NUMBER = struct.Struct("<Q")


class Wire:
    """Numbers and strings over a stream socket; writes wait until `flush`.

    A time-out, an end of the stream and any other failure are `StoreUnreachable`; the socket's
    own time-out bounds each wait.
    """

    def __init__(self, stream: socket.socket) -> None:
        self._socket = stream
        self._reader = stream.makefile("rb", buffering=1 << 16)
        self._unsent = bytearray()

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

    def read_chunks(self, size: int) -> Iterator[bytes]:
        """The next *size* bytes, unframed, in chunks of up to 1 MiB."""
        while size:
            chunk = self._read(min(size, CHUNK_BYTES))
            size -= len(chunk)
            yield chunk

    def is_quiet(self) -> bool:
        """Whether nothing has come in unasked, such as the end of the stream."""
        listening = select.poll()
        listening.register(self._socket, select.POLLIN)
        return not listening.poll(0)

    def close(self) -> None:
        """Let go of the socket."""
        self._reader.close()
        self._socket.close()

    def _read(self, size: int) -> bytes:
        try:
            data: bytes = self._reader.read(size)
        except OSError as error:
            raise _broken(error) from error
        if len(data) < size:
            raise StoreUnreachable(
                "the Nix daemon closed the connection in the middle of an answer"
            )
        return data


def _broken(error: OSError) -> StoreUnreachable:
    if isinstance(error, TimeoutError):
        return StoreUnreachable("the Nix daemon has not answered in time")
    return StoreUnreachable(f"the connection to the Nix daemon broke: {error.strerror or error}")

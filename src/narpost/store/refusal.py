"""What Nix says when it cannot go on in the middle of a NAR: its error stands among the bytes."""

import re
import struct

from narpost.errors import StoreRefused

# `STDERR_ERROR`, and the type of the error, as Nix's daemon writes them.
ERROR = 0x63787470
_BEGIN = struct.pack("<QQ", ERROR, 5) + b"Error\0\0\0"
_NUMBER = struct.Struct("<Q")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def refused(message: str) -> StoreRefused:
    """The error with what Nix says."""
    plain = _COLOUR.sub("", message).strip().removeprefix("error: ")
    return StoreRefused(f"Nix says: {plain}")


def refusal_in(data: bytes) -> StoreRefused | None:
    """The error that stands in *data*, which turned out to be no whole NAR; none is there mostly.

    Where it was cut off, Nix's words are missing.
    """
    begin = data.rfind(_BEGIN)
    if begin < 0:
        return None
    rest = data[begin + len(_BEGIN) + _NUMBER.size :]  # after the level
    _name, rest = _string(rest)
    message, _ = _string(rest)
    return refused(message) if message else StoreRefused("Nix could not read it to its end")


def _string(data: bytes) -> tuple[str, bytes]:
    """The string that *data* begins with, as far as it is there, and the rest."""
    if len(data) < _NUMBER.size:
        return "", b""
    (size,) = _NUMBER.unpack_from(data)
    end = _NUMBER.size + size
    text = data[_NUMBER.size : end] if len(data) >= end else b""
    return text.decode(errors="replace"), data[end + -size % 8 :]

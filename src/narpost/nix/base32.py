"""Nix's base 32: its own alphabet, the last digit first.

Source: `libutil/hash.cc` of Nix. The bytes are one little-endian number, written with its
most significant digit first, which is RFC 4648's base 32 of the reversed bytes.
"""

import base64

from narpost.errors import MalformedError

ALPHABET = "0123456789abcdfghijklmnpqrsvwxyz"

_RFC4648 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_TO_NIX = str.maketrans(_RFC4648, ALPHABET)
_FROM_NIX = str.maketrans(ALPHABET, _RFC4648)
_DIGITS = frozenset(ALPHABET)


def encoded_length(size: int) -> int:
    """How many digits *size* bytes take."""
    return (size * 8 + 4) // 5


def encode(data: bytes) -> str:
    """Write *data* in Nix's base 32."""
    zeros = -len(data) % 5
    digits = base64.b32encode(bytes(zeros) + data[::-1]).decode().translate(_TO_NIX)
    return digits[len(digits) - encoded_length(len(data)) :]


def decode(text: str) -> bytes:
    """Read what `encode` wrote; anything else is a `MalformedError`."""
    size = len(text) * 5 // 8
    if not _DIGITS.issuperset(text) or encoded_length(size) != len(text):
        raise MalformedError(f"{text!r} is not base 32 as Nix writes it")
    padded = "0" * (-len(text) % 8) + text
    number = base64.b32decode(padded.translate(_FROM_NIX))
    if any(number[: len(number) - size]):
        raise MalformedError(
            f"{text!r} is not base 32 as Nix writes it: its first digit is too high"
        )
    return number[len(number) - size :][::-1]

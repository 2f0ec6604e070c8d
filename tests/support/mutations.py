"""Input from outside for the tests: made up, or valid and then changed in a few places."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from hypothesis import strategies as st

# What formats are most likely to stumble over: ends, separators, signs, sizes and depths.
NOTABLE = (
    *(bytes([byte]) for byte in b"\0\n\r\t :/?=-.,;~%\"'[]{}#\\\x1b\x7f\x80\xff"),
    *(b"..", b"%00", b"%ff", b"\x1b[2J", b"\r\n", b"\\u0000"),
    # A letter, a digit, a space, a line's end, and what turns the direction round.
    *(letter.encode() for letter in "é\u0663\u00a0\u2028\u202e"),
    *(b"9" * 5000, b"[" * 5000, b"A" * 300),
)
# A number of the worker protocol, where something is announced or counted.
NUMBERS = (0, 1, 7, 8, 9, 255, 1 << 16, 1 << 26, (1 << 26) + 1, 1 << 60, 1 << 63, (1 << 64) - 1)


class Change(Protocol):
    """One change of some bytes; its place goes round where there are fewer."""

    def __call__(self, data: bytes) -> bytes:
        """*data*, changed."""


@dataclass(frozen=True, slots=True)
class Flip:
    """Some bits of one byte."""

    place: int
    mask: int

    def __call__(self, data: bytes) -> bytes:
        """*data* with them flipped."""
        at = self.place % max(1, len(data))
        return data[:at] + bytes(byte ^ self.mask for byte in data[at : at + 1]) + data[at + 1 :]


@dataclass(frozen=True, slots=True)
class Cut:
    """Up to *count* bytes are missing."""

    place: int
    count: int

    def __call__(self, data: bytes) -> bytes:
        """*data* without them."""
        at = self.place % max(1, len(data))
        return data[:at] + data[at + self.count :]


@dataclass(frozen=True, slots=True)
class End:
    """Nothing comes from this place on."""

    place: int

    def __call__(self, data: bytes) -> bytes:
        """*data* up to there."""
        return data[: self.place % max(1, len(data))]


@dataclass(frozen=True, slots=True)
class Insert:
    """A piece comes in between."""

    place: int
    piece: bytes

    def __call__(self, data: bytes) -> bytes:
        """*data* with it."""
        at = self.place % (len(data) + 1)
        return data[:at] + self.piece + data[at:]


@dataclass(frozen=True, slots=True)
class Repeat:
    """Up to *count* bytes come twice."""

    place: int
    count: int

    def __call__(self, data: bytes) -> bytes:
        """*data* with them twice."""
        at = self.place % max(1, len(data))
        return data[: at + self.count] + data[at:]


@dataclass(frozen=True, slots=True)
class Renumber:
    """Eight bytes become another number, as the worker protocol writes it."""

    place: int
    number: int

    def __call__(self, data: bytes) -> bytes:
        """*data* with that number."""
        at = self.place % max(1, len(data) // 8) * 8
        return data[:at] + self.number.to_bytes(8, "little") + data[at + 8 :]


@dataclass(frozen=True, slots=True)
class Replace:
    """Something else altogether."""

    by: bytes

    def __call__(self, data: bytes) -> bytes:
        """What came instead."""
        return self.by


_places = st.integers(0, 1 << 16)
_counts = st.integers(1, 40)
_pieces = st.sampled_from(NOTABLE) | st.binary(min_size=1, max_size=9)
_numbers = st.sampled_from(NUMBERS) | st.integers(0, (1 << 64) - 1)

_small = st.one_of(
    st.builds(Flip, _places, st.integers(1, 255)),
    st.builds(Cut, _places, _counts),
    st.builds(End, _places),
    st.builds(Insert, _places, _pieces),
    st.builds(Repeat, _places, _counts),
)
_whole = st.builds(Replace, st.binary(max_size=100))

Changes = Sequence[Change]

any_changes: st.SearchStrategy[Changes] = st.lists(_small | _whole, min_size=1, max_size=3)
# For data that is made of numbers of eight bytes: these reach deeper.
any_number_changes: st.SearchStrategy[Changes] = st.lists(
    _small | _whole | st.builds(Renumber, _places, _numbers), min_size=1, max_size=3
)


def changed(data: bytes, changes: Changes) -> bytes:
    """*data* after all *changes*."""
    for change in changes:
        data = change(data)
    return data


def text_of(data: bytes) -> str:
    """Bytes from outside, as Python gives them to us where they should be text."""
    return data.decode(errors="surrogateescape")

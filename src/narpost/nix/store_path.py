"""Store paths, and the folder they lie in."""

import re
from dataclasses import dataclass
from typing import Self

from narpost.errors import MalformedError
from narpost.nix import base32

HASH_PART_LENGTH = 32
NAME_LENGTH_LIMIT = 211

_DRV = ".drv"
_BASE_NAME = re.compile(
    rf"([{base32.ALPHABET}]{{{HASH_PART_LENGTH}}})-([0-9A-Za-z+\-._?=]{{1,{NAME_LENGTH_LIMIT}}})"
)
# `libstore/path.cc`: these would be read as relative folders by somebody, some day.
_DOTTED = re.compile(r"\.\.?(-.*)?")


@dataclass(frozen=True, slots=True, order=True)
class StorePath:
    """`<hash part>-<name>`, checked when parsed; says nothing of the folder it lies in."""

    base_name: str

    @classmethod
    def parse(cls, base_name: str) -> Self:
        """Check *base_name* by Nix's rules."""
        match = _BASE_NAME.fullmatch(base_name)
        if match is None or _DOTTED.fullmatch(match[2]):
            raise MalformedError(
                f"{base_name!r} is not the name of a store path",
                f"a store path is named <{HASH_PART_LENGTH} base-32 digits>-<name>",
            )
        return cls(base_name)

    @property
    def hash_part(self) -> str:
        """The 32 digits by which a binary cache names the path."""
        return self.base_name[:HASH_PART_LENGTH]

    @property
    def name(self) -> str:
        """What follows the hash part."""
        return self.base_name[HASH_PART_LENGTH + 1 :]

    @property
    def is_derivation(self) -> bool:
        """Whether this is a `.drv` file."""
        return self.base_name.endswith(_DRV)

    def __str__(self) -> str:
        return self.base_name


@dataclass(frozen=True, slots=True)
class StoreDir:
    """The folder that holds a store, `/nix/store` unless a store is private."""

    folder: str = "/nix/store"

    def parse(self, text: str) -> StorePath:
        """Read the full name of a store path; files inside of one are refused."""
        prefix = f"{self.folder}/"
        if not text.startswith(prefix):
            raise MalformedError(
                f"{text!r} is not in the store {self.folder}",
                f"give a path below {self.folder}, or a link that leads there",
            )
        return StorePath.parse(text[len(prefix) :])

    def containing(self, text: str) -> StorePath:
        """The store path that the file *text* belongs to."""
        inside = text.removeprefix(f"{self.folder}/")
        return self.parse(f"{self.folder}/{inside.partition('/')[0]}" if inside != text else text)

    def render(self, path: StorePath) -> str:
        """The full name of *path*."""
        return f"{self.folder}/{path.base_name}"

"""Hashes with the name of their algorithm, in the spellings that Nix reads."""

import base64
import binascii
from dataclasses import dataclass
from typing import Self

from narpost.errors import MalformedError
from narpost.nix import base32

DIGEST_BYTES = {"md5": 16, "sha1": 20, "sha256": 32, "sha512": 64}


@dataclass(frozen=True, slots=True)
class Hash:
    """A digest of the right length for its algorithm."""

    algorithm: str
    digest: bytes

    @classmethod
    def sha256(cls, digest: bytes) -> Self:
        """The hash that Nix uses for NARs and files."""
        return cls("sha256", digest)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `sha256:<base 32>`, `sha256:<base 16>` or `sha256-<base 64>`."""
        for separator, spellings in ((":", (_base32, _base16, _base64)), ("-", (_base64,))):
            algorithm, found, digits = text.partition(separator)
            size = DIGEST_BYTES.get(algorithm)
            if found and size is not None:
                for spelling in spellings:
                    digest = spelling(digits, size)
                    if digest is not None:
                        return cls(algorithm, digest)
        raise MalformedError(f"{text!r} is not a hash such as sha256:<52 base-32 digits>")

    @classmethod
    def parse_base16(cls, algorithm: str, digits: str) -> Self:
        """Read the bare hexadecimal digits that the worker protocol sends."""
        digest = _base16(digits, DIGEST_BYTES[algorithm])
        if digest is None:
            raise MalformedError(f"{digits!r} is not a {algorithm} hash in base 16")
        return cls(algorithm, digest)

    @property
    def digits(self) -> str:
        """The digest in Nix's base 32."""
        return base32.encode(self.digest)

    def render(self) -> str:
        """`sha256:<base 32>`, as in narinfos and fingerprints."""
        return f"{self.algorithm}:{self.digits}"


def _base32(digits: str, size: int) -> bytes | None:
    return base32.decode(digits) if len(digits) == base32.encoded_length(size) else None


def _base16(digits: str, size: int) -> bytes | None:
    try:
        digest = bytes.fromhex(digits)
    except ValueError:
        return None
    # fromhex passes over spaces, so the length of both has to fit.
    return digest if len(digits) == size * 2 and len(digest) == size else None


def _base64(digits: str, size: int) -> bytes | None:
    try:
        digest = base64.b64decode(digits, validate=True)
    except (binascii.Error, ValueError):
        return None
    return digest if len(digest) == size else None

"""Binary cache keys: Ed25519 pairs with a name, and the signatures they make.

Files and signatures are as `nix-store --generate-binary-cache-key` and `nix store sign` write
them: `<key name>:<base 64>`, where a secret key is its seed followed by its public key.
"""

import base64
import binascii
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from narpost.errors import MalformedError

# cryptography takes as long to import as all the rest: only what signs or verifies waits for it.
if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SEED_BYTES = 32
PUBLIC_BYTES = 32
SECRET_BYTES = SEED_BYTES + PUBLIC_BYTES


@dataclass(frozen=True, slots=True)
class PublicKey:
    """What clients list in `trusted-public-keys`."""

    name: str
    key: bytes

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `<key name>:<base 64 of 32 bytes>`."""
        name, key = _parse_named(text, "public key")
        if len(key) == SECRET_BYTES:
            raise MalformedError(
                "a secret key was given where a public one belongs",
                "give the public key, and make a new pair if this one was shown to anybody",
            )
        if len(key) != PUBLIC_BYTES:
            raise MalformedError(
                f"a public key has {len(key)} bytes and not {PUBLIC_BYTES}",
                "copy its line whole: <key name>:<base 64>",
            )
        return cls(name, key)

    def render(self) -> str:
        """`<key name>:<base 64>`."""
        return _render_named(self.name, self.key)

    def has_signed(self, fingerprint: bytes, signatures: Iterable[str]) -> bool:
        """Whether one of *signatures* is this key's, over these very bytes."""
        return any(self._made(signature, fingerprint) for signature in signatures)

    def _made(self, signature: str, fingerprint: bytes) -> bool:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        name, _, digits = signature.partition(":")
        if name != self.name:
            return False
        try:
            made = base64.b64decode(digits, validate=True)
            Ed25519PublicKey.from_public_bytes(self.key).verify(made, fingerprint)
        except (InvalidSignature, binascii.Error, ValueError):
            return False
        return True


@dataclass(frozen=True, slots=True)
class SecretKey:
    """What signs; it is left out of its own `repr`, so that no log can show it."""

    name: str
    seed: bytes = field(repr=False)

    @classmethod
    def generate(cls, name: str) -> Self:
        """A new key; *name* by custom is a domain and a number, `cache.example.org-1`."""
        if not name or ":" in name or any(letter.isspace() for letter in name):
            raise MalformedError(
                f"{name!r} cannot name a key",
                "a key's name has no colon and no space, such as cache.example.org-1",
            )
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return cls(name, Ed25519PrivateKey.generate().private_bytes_raw())

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `<key name>:<base 64 of 64 bytes>`; no message repeats a part of the text."""
        name, key = _parse_named(text, "secret key")
        if len(key) == PUBLIC_BYTES:
            raise MalformedError(
                "a public key was given where a secret one belongs",
                "give the file that was written first by narpost keygen or nix-store",
            )
        if len(key) != SECRET_BYTES:
            raise MalformedError(
                f"a secret key has {len(key)} bytes and not {SECRET_BYTES}",
                "restore the file from a copy, or make a new pair with narpost keygen",
            )
        secret = cls(name, key[:SEED_BYTES])
        if secret.public.key != key[SEED_BYTES:]:
            raise MalformedError(
                "the two halves of a secret key do not belong together",
                "restore the file from a copy, or make a new pair with narpost keygen",
            )
        return secret

    @property
    def public(self) -> PublicKey:
        """The key that verifies what this one signs."""
        return PublicKey(self.name, self._private.public_key().public_bytes_raw())

    def render(self) -> str:
        """`<key name>:<base 64>`: secret, for the key file only."""
        return _render_named(self.name, self.seed + self.public.key)

    def sign(self, fingerprint: bytes) -> str:
        """`<key name>:<base 64>`, as a narinfo's `Sig`."""
        return _render_named(self.name, self._private.sign(fingerprint))

    @property
    def _private(self) -> "Ed25519PrivateKey":
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return Ed25519PrivateKey.from_private_bytes(self.seed)


def _parse_named(text: str, what: str) -> tuple[str, bytes]:
    name, colon, digits = text.strip().partition(":")
    try:
        key = base64.b64decode(digits, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not (name and colon and key) or any(letter.isspace() for letter in name):
        raise MalformedError(
            f"this is not a {what} of Nix's form", f"a {what} is one line: <key name>:<base 64>"
        )
    return name, key


def _render_named(name: str, data: bytes) -> str:
    return f"{name}:{base64.b64encode(data).decode()}"

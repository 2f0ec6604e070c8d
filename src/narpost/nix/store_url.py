"""Store URLs as `nix copy --to` takes them: `s3://bucket?region=eu-west-1`, `file:///srv/cache`."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import parse_qsl, quote, unquote, urlencode

from narpost.errors import MalformedError

_COMMON = frozenset(
    "compression compression-level secret-key secret-keys want-mass-query priority".split()
)
PARAMETERS: Mapping[str, frozenset[str]] = {
    "file": _COMMON,
    "s3": _COMMON | {"endpoint", "region", "scheme", "profile"},
}

# Three characters at least, as every S3 server wants them; dots and dashes inside.
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]")


@dataclass(frozen=True, slots=True)
class StoreUrl:
    """Where a cache lies: a *bucket* of an S3 server, or a *folder* of this machine.

    *location* is the bucket's name or the folder's absolute path; *parameters* are as given,
    every name known.
    """

    scheme: str
    location: str
    parameters: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a store URL; an unknown parameter is an error that names the nearest known one."""
        scheme, separator, rest = text.partition("://")
        if not separator or scheme not in PARAMETERS:
            raise MalformedError(
                f"{text!r} is not the URL of a cache",
                "a cache's URL begins with s3:// or file://, as for nix copy --to",
            )
        location, _, query = rest.partition("?")
        if "\0" in unquote(location) or text != text.encode(errors="replace").decode():
            raise MalformedError(f"{text!r} has bytes that no URL has", "write a byte as %XX")
        parameters = dict(parse_qsl(query, keep_blank_values=True))
        _check_names(parameters, scheme, text)
        return cls(scheme, _location(scheme, unquote(location), text), parameters)

    def render(self) -> str:
        """The URL again."""
        query = urlencode(self.parameters, quote_via=quote, safe="/:")
        return f"{self.scheme}://{quote(self.location)}" + (f"?{query}" if query else "")

    @property
    def public(self) -> str:
        """The URL for clients: without what concerns only those who write."""
        reading = {"endpoint", "region", "scheme", "profile"}
        kept = {name: value for name, value in self.parameters.items() if name in reading}
        return type(self)(self.scheme, self.location, kept).render()

    def __str__(self) -> str:
        return f"{self.scheme}://{self.location}"


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint for a word that nobody knows: the nearest known one, and all of them."""
    import difflib

    ordered = sorted(known)
    close = difflib.get_close_matches(name, ordered, n=1)
    guess = f"did you mean {close[0]}? " if close else ""
    return f"{guess}known are: {', '.join(ordered)}"


def _check_names(parameters: Mapping[str, str], scheme: str, text: str) -> None:
    for name in parameters:
        if name not in PARAMETERS[scheme]:
            raise MalformedError(
                f"{text!r} has the unknown parameter {name!r}", nearest(name, PARAMETERS[scheme])
            )


def _location(scheme: str, location: str, text: str) -> str:
    if scheme == "file":
        if not location.startswith("/"):
            raise MalformedError(
                f"{text!r} does not name a folder from the root on", "write file:///srv/cache"
            )
        return location.rstrip("/") or "/"
    if not _BUCKET.fullmatch(location.rstrip("/")):
        raise MalformedError(
            f"{text!r} does not name a bucket",
            "write s3://my-bucket; a bucket's name has 3 to 63 small letters, digits, . and -",
        )
    return location.rstrip("/")

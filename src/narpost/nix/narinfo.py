"""Narinfos: what a binary cache says of one store path.

Source: `libstore/nar-info.cc` of Nix and Lix; fields in the order in which they write them.
"""

from dataclasses import dataclass
from typing import Self

from narpost.errors import MalformedError
from narpost.nix.hashes import Hash
from narpost.nix.path_info import PathInfo
from narpost.nix.store_path import StoreDir, StorePath

_REPEATED = "Sig"
_ONCE = frozenset(
    "StorePath URL Compression FileHash FileSize NarHash NarSize References Deriver CA".split()
)
_UNKNOWN_DERIVER = "unknown-deriver"
_SIZE_LIMIT = 1 << 63


@dataclass(frozen=True, slots=True)
class NarInfo:
    """A path, and where its NAR lies.

    *url* is the NAR's key, relative to the cache; *file_hash* and *file_bytes* are those of the
    compressed bytes, and absent where another program left them out.
    """

    info: PathInfo
    url: str
    compression: str
    file_hash: Hash | None = None
    file_bytes: int | None = None

    @classmethod
    def parse(cls, text: str, store_dir: StoreDir) -> Self:
        """Read a narinfo; a field that we do not know is passed over, as Nix does."""
        fields, signatures = _fields(text)
        file_hash, file_bytes = fields.get("FileHash"), fields.get("FileSize")
        info = PathInfo(
            path=store_dir.parse(_required(fields, "StorePath")),
            nar_hash=Hash.parse(_required(fields, "NarHash")),
            nar_bytes=_size(_required(fields, "NarSize"), "NarSize"),
            references=_references(fields.get("References", "")),
            deriver=_deriver(fields.get("Deriver", "")),
            signatures=signatures,
            content_address=fields.get("CA", ""),
        )
        return cls(
            info=info,
            url=_required(fields, "URL"),
            # Nix takes a narinfo without this field for bzip2, its only one at the time.
            compression=fields.get("Compression") or "bzip2",
            file_hash=Hash.parse(file_hash) if file_hash else None,
            file_bytes=_size(file_bytes, "FileSize") if file_bytes else None,
        )

    def render(self, store_dir: StoreDir) -> str:
        """Write it as Nix does, byte for byte."""
        info = self.info
        lines = [
            f"StorePath: {store_dir.render(info.path)}",
            f"URL: {self.url}",
            f"Compression: {self.compression}",
        ]
        if self.file_hash is not None:
            lines.append(f"FileHash: {self.file_hash.render()}")
        if self.file_bytes is not None:
            lines.append(f"FileSize: {self.file_bytes}")
        lines += [
            f"NarHash: {info.nar_hash.render()}",
            f"NarSize: {info.nar_bytes}",
            f"References: {' '.join(map(str, info.references))}",
        ]
        if info.deriver is not None:
            lines.append(f"Deriver: {info.deriver}")
        lines += [f"{_REPEATED}: {signature}" for signature in info.signatures]
        if info.content_address:
            lines.append(f"CA: {info.content_address}")
        return "\n".join(lines) + "\n"


def _fields(text: str) -> tuple[dict[str, str], tuple[str, ...]]:
    fields: dict[str, str] = {}
    signatures: list[str] = []
    for line in text.removesuffix("\n").split("\n"):
        name, colon, value = line.partition(":")
        if not colon:
            raise MalformedError(f"a narinfo has the line {line!r}, which is no field")
        value = value.removeprefix(" ")
        if name == _REPEATED:
            signatures.append(value)
        elif name in fields:
            raise MalformedError(f"a narinfo has the field {name} twice")
        elif name in _ONCE:
            fields[name] = value
    return fields, tuple(signatures)


def _required(fields: dict[str, str], name: str) -> str:
    value = fields.get(name)
    if not value:
        raise MalformedError(f"a narinfo lacks the field {name}")
    return value


def _size(text: str, name: str) -> int:
    if not (text.isascii() and text.isdecimal()) or len(text) > 20 or int(text) >= _SIZE_LIMIT:
        raise MalformedError(f"a narinfo has {name} {text!r}, which is no size")
    return int(text)


def _references(text: str) -> tuple[StorePath, ...]:
    return tuple(sorted(set(map(StorePath.parse, text.split()))))


def _deriver(text: str) -> StorePath | None:
    return None if text in {"", _UNKNOWN_DERIVER} else StorePath.parse(text)

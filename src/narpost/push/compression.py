"""How NARs are compressed: the formats that Nix reads, each as a stream."""

import bz2
import lzma
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, Self

import zstandard

from narpost.errors import UsageError
from narpost.nix.cache_names import NAR_EXTENSIONS
from narpost.nix.store_url import nearest

DEFAULT = "zstd"
_LEVELS: Mapping[str, tuple[int, int, int]] = {
    # lowest, default, highest
    "zstd": (1, 3, 22),
    "xz": (0, 6, 9),
    "bzip2": (1, 9, 9),
    "gzip": (1, 6, 9),
    "none": (0, 0, 0),
}
# zlib: a window of 32 KiB, with a gzip header around it.
_GZIP_WINDOW = 15 + 16


class Stream(Protocol):
    """One stream: feed it chunks, then flush it once."""

    def compress(self, data: bytes, /) -> bytes:
        """Take *data* in; gives what is ready."""

    def flush(self) -> bytes:
        """The rest."""


@dataclass(frozen=True, slots=True)
class Compression:
    """A format by Nix's name for it, and its level."""

    name: str = DEFAULT
    level: int = _LEVELS[DEFAULT][1]

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, str]) -> Self:
        """Read *compression* and *compression-level* of a store URL."""
        name = parameters.get("compression", DEFAULT)
        if name not in NAR_EXTENSIONS:
            raise UsageError(
                f"{name!r} is not a compression that narpost has", nearest(name, NAR_EXTENSIONS)
            )
        lowest, default, highest = _LEVELS[name]
        text = parameters.get("compression-level", str(default))
        try:
            level = int(text)
        except ValueError:
            level = lowest - 1
        # Nix writes -1 for the format's default.
        if text == "-1":
            level = default
        if not lowest <= level <= highest:
            raise UsageError(
                f"{text!r} is not a compression-level of {name}",
                f"give a number from {lowest} to {highest}",
            )
        return cls(name, level)

    def start(self, threads: int = 0) -> "Compressor":
        """What compresses, for one thread; zstd takes *threads* of its own beside it."""
        return Compressor(self, threads)


class Compressor:
    """Compresses one thing after another, keeping what is costly to make."""

    def __init__(self, compression: Compression, threads: int) -> None:
        self._name = compression.name
        self._level = compression.level
        self._zstd = zstandard.ZstdCompressor(
            level=self._level if self._name == "zstd" else 1, threads=threads
        )

    def whole(self, data: bytes) -> bytes:
        """*data*, compressed at one go."""
        if self._name == "zstd":
            return self._zstd.compress(data)
        stream = self.stream(len(data))
        return stream.compress(data) + stream.flush()

    def stream(self, size: int) -> Stream:
        """A stream for *size* bytes."""
        match self._name:
            case "zstd":
                return self._zstd.compressobj(size=size)
            case "xz":
                return lzma.LZMACompressor(preset=self._level)
            case "bzip2":
                return bz2.BZ2Compressor(self._level)
            case "gzip":
                return zlib.compressobj(self._level, wbits=_GZIP_WINDOW)
            case _:
                return _Stored()


class _Stored:
    """No compression."""

    def compress(self, data: bytes, /) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""

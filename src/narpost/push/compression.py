"""How NARs are compressed: the formats that Nix reads, each as a stream."""

import bz2
import lzma
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol, Self

import zstandard

from narpost.errors import UsageError
from narpost.nix.cache_names import NAR_EXTENSIONS
from narpost.nix.store_url import nearest

DEFAULT = "zstd"
_NO_LEVEL = "-1"
_LEVELS: Mapping[str, tuple[int, int, int]] = {
    # lowest, default, highest
    "zstd": (1, 3, 22),
    "xz": (0, 6, 9),
    "bzip2": (1, 9, 9),
    "gzip": (1, 6, 9),
    "none": (0, 0, 0),
}
# What zstd's default is, up to which size of NAR: little is gained by more on what is small, and
# all that a cache stores for years is worth more on what is large (docs/decisions/0005).
_ZSTD_BY_SIZE = ((64 << 10, 3), (4 << 20, 6))
_ZSTD_LARGE = 10
# Content that level 1 makes no smaller than this is sent at that level.
_DENSE = 0.98

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
    """A format by Nix's name for it, and its level; without one, what suits the content."""

    name: str = DEFAULT
    level: int | None = None

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, str]) -> Self:
        """Read *compression* and *compression-level* of a store URL."""
        name = parameters.get("compression", DEFAULT)
        if name not in NAR_EXTENSIONS:
            raise UsageError(
                f"{name!r} is not a compression that narpost has", nearest(name, NAR_EXTENSIONS)
            )
        text = parameters.get("compression-level", _NO_LEVEL)
        # Nix writes -1 for the format's default.
        if text == _NO_LEVEL:
            return cls(name)
        return cls(name).at(text)

    def at(self, text: str) -> Self:
        """The same format at the level that *text* says."""
        lowest, _, highest = _LEVELS[self.name]
        level = int(text) if text.isascii() and text.isdecimal() and len(text) < 3 else lowest - 1
        if not lowest <= level <= highest:
            raise UsageError(
                f"{text!r} is not a compression-level of {self.name}",
                f"give a number from {lowest} to {highest}",
            )
        return replace(self, level=level)

    def level_for(self, size: int, sample: bytes = b"") -> int:
        """The level for a NAR of *size* bytes that begins with *sample*."""
        if self.level is not None:
            return self.level
        if self.name != "zstd":
            return _LEVELS[self.name][1]
        if sample and len(zstandard.compress(sample, 1)) > _DENSE * len(sample):
            return 1
        return next((level for limit, level in _ZSTD_BY_SIZE if size <= limit), _ZSTD_LARGE)

    def start(self, threads: int = 0) -> "Compressor":
        """What compresses, for one thread; zstd takes *threads* of its own beside it."""
        return Compressor(self, threads)


class Compressor:
    """Compresses one thing after another, keeping what is costly to make."""

    def __init__(self, compression: Compression, threads: int) -> None:
        self._compression = compression
        self._threads = threads
        self._zstd: dict[int, zstandard.ZstdCompressor] = {}

    def whole(self, data: bytes) -> bytes:
        """*data*, compressed at one go."""
        if self._compression.name == "zstd":
            return self._zstd_at(self._compression.level_for(len(data))).compress(data)
        stream = self.stream(len(data))
        return stream.compress(data) + stream.flush()

    def stream(self, size: int, sample: bytes = b"") -> Stream:
        """A stream for *size* bytes that begin with *sample*."""
        level = self._compression.level_for(size, sample)
        match self._compression.name:
            case "zstd":
                return self._zstd_at(level).compressobj(size=size)
            case "xz":
                return lzma.LZMACompressor(preset=level)
            case "bzip2":
                return bz2.BZ2Compressor(level)
            case "gzip":
                return zlib.compressobj(level, wbits=_GZIP_WINDOW)
            case _:
                return _Stored()

    def _zstd_at(self, level: int) -> zstandard.ZstdCompressor:
        if level not in self._zstd:
            self._zstd[level] = zstandard.ZstdCompressor(level=level, threads=self._threads)
        return self._zstd[level]


class _Stored:
    """No compression."""

    def compress(self, data: bytes, /) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""

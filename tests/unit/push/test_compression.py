"""How NARs are compressed: each format as others read it."""

import bz2
import gzip
import lzma
import random
from collections.abc import Callable, Mapping

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from narpost.errors import UsageError
from narpost.nix.cache_names import NAR_EXTENSIONS
from narpost.push.compression import Compression, Compressor

DECOMPRESSORS: Mapping[str, Callable[[bytes], bytes]] = {
    "none": bytes,
    "zstd": lambda data: zstandard.ZstdDecompressor().decompress(data),
    "xz": lambda data: lzma.decompress(data, lzma.FORMAT_XZ),
    "bzip2": bz2.decompress,
    "gzip": gzip.decompress,
}
LEVELS = {"zstd": (1, 22), "xz": (0, 9), "bzip2": (1, 9), "gzip": (1, 9), "none": (0, 0)}

chunks = st.lists(st.binary(max_size=200), max_size=5)


def parameters(name: str, level: str | None = None) -> dict[str, str]:
    """As a store URL has them."""
    return {"compression": name} | ({} if level is None else {"compression-level": level})


def stream(compressor: Compressor, parts: list[bytes]) -> bytes:
    """*parts*, compressed as they come."""
    opened = compressor.stream(sum(map(len, parts)))
    return b"".join([*map(opened.compress, parts), opened.flush()])


def test_there_is_a_way_back_from_each_format_that_nix_names() -> None:
    """No format is left out of these tests."""
    assert DECOMPRESSORS.keys() == LEVELS.keys() == NAR_EXTENSIONS.keys()


@pytest.mark.parametrize("name", DECOMPRESSORS)
@given(parts=chunks)
def test_others_read_what_we_wrote(name: str, parts: list[bytes]) -> None:
    """At one go or in pieces, one after another, and also where there was nothing."""
    compressor = Compression.from_parameters(parameters(name)).start()

    for compressed in (
        compressor.whole(b"".join(parts)),
        stream(compressor, parts),
        compressor.whole(b"".join(parts)),
    ):
        assert DECOMPRESSORS[name](compressed) == b"".join(parts)


@pytest.mark.parametrize("name", DECOMPRESSORS)
@pytest.mark.parametrize("end", [0, 1])
def test_the_ends_of_the_levels_work(name: str, end: int) -> None:
    """The lowest and the highest."""
    level = LEVELS[name][end]
    data = b"some text that repeats itself\n" * 1000

    compressed = Compression.from_parameters(parameters(name, str(level))).start().whole(data)

    assert DECOMPRESSORS[name](compressed) == data


def test_threads_of_the_compressor_change_nothing_for_the_reader() -> None:
    """A large path is packed with more than one."""
    data = [b"line %d of a large file\n" % number * 50 for number in range(2000)]

    compressed = stream(Compression().start(threads=2), data)

    assert DECOMPRESSORS["zstd"](compressed) == b"".join(data)


def test_zstd_is_taken_where_nothing_is_said() -> None:
    """Every Nix since 2.4, and every Lix, reads it."""
    assert Compression.from_parameters({}) == Compression()
    assert Compression().name == "zstd"


@pytest.mark.parametrize("name", DECOMPRESSORS)
def test_minus_one_is_the_format_s_default(name: str) -> None:
    """As Nix writes it."""
    said = Compression.from_parameters(parameters(name, "-1"))

    assert said == Compression.from_parameters(parameters(name))


@pytest.mark.parametrize(
    ("given_parameters", "error", "hint"),
    [
        (parameters("zst"), "'zst' is not a compression", "did you mean zstd?"),
        (parameters("br"), "'br' is not a compression", "known are: bzip2, gzip, none, xz, zstd"),
        (parameters(""), "'' is not a compression", "known are"),
        (parameters("zstd", "23"), "'23' is not a compression-level of zstd", "from 1 to 22"),
        (parameters("zstd", "0"), "'0' is not a compression-level of zstd", "from 1 to 22"),
        (parameters("xz", "10"), "'10' is not a compression-level of xz", "from 0 to 9"),
        (parameters("none", "1"), "'1' is not a compression-level of none", "from 0 to 0"),
        (parameters("gzip", "best"), "'best' is not a compression-level of gzip", "from 1 to 9"),
        (parameters("gzip", "4.5"), "'4.5' is not a compression-level of gzip", "from 1 to 9"),
        (parameters("gzip", ""), "'' is not a compression-level of gzip", "from 1 to 9"),
        (parameters("bzip2", "-2"), "'-2' is not a compression-level of bzip2", "from 1 to 9"),
    ],
)
def test_a_parameter_that_means_nothing_is_refused(
    given_parameters: dict[str, str], error: str, hint: str
) -> None:
    """What was said, and what can be said."""
    with pytest.raises(UsageError) as caught:
        Compression.from_parameters(given_parameters)

    assert error in caught.value.message
    assert hint in caught.value.hint


@pytest.mark.parametrize(("size", "level"), [(1000, 3), (1 << 20, 6), (1 << 30, 10)])
def test_the_default_level_rises_with_what_there_is_to_gain(size: int, level: int) -> None:
    """A small NAR gains nothing by a high level, and a large one is stored for years."""
    assert Compression().level_for(size, b"text " * 1000) == level


def test_content_that_does_not_compress_gets_a_cheap_level() -> None:
    """It is known by how it begins; a level that somebody has set is kept."""
    dense = random.Random(1).randbytes(100_000)

    assert Compression().level_for(1 << 30, dense) == 1
    assert Compression("zstd", 9).level_for(1 << 30, dense) == 9

"""The names of the objects in a binary cache."""

import pytest

from narpost.nix.cache_names import NAR_EXTENSIONS, nar_key, narinfo_key
from narpost.nix.narinfo import NarInfo
from narpost.nix.store_path import StoreDir, StorePath
from support.vectors import HELLO_NARINFO, PLAIN_NARINFO

HELLO = NarInfo.parse(HELLO_NARINFO, StoreDir())


def test_a_narinfo_is_named_by_the_hash_part() -> None:
    """The name of the path plays no part, since clients ask by hash part."""
    path = StorePath.parse("1j5vnm9a3r56jrsylgkynrpf2b0hmsmp-hello")

    assert narinfo_key(path) == "1j5vnm9a3r56jrsylgkynrpf2b0hmsmp.narinfo"


@pytest.mark.parametrize("text", [HELLO_NARINFO, PLAIN_NARINFO])
def test_a_nar_is_named_as_nix_copy_names_it(text: str) -> None:
    """The key is the URL in the narinfo that Nix wrote."""
    narinfo = NarInfo.parse(text, StoreDir())
    assert narinfo.file_hash is not None

    key = nar_key(narinfo.file_hash, narinfo.compression)

    assert key == narinfo.url


@pytest.mark.parametrize(
    ("compression", "ending"),
    [("none", ".nar"), ("zstd", ".nar.zst"), ("xz", ".nar.xz"), ("bzip2", ".nar.bz2")],
)
def test_the_ending_tells_the_compression(compression: str, ending: str) -> None:
    """Each compression has the ending that Nix gives it."""
    key = nar_key(HELLO.info.nar_hash, compression)

    assert key == f"nar/{HELLO.info.nar_hash.digits}{ending}"


def test_no_two_compressions_share_an_ending() -> None:
    """The same hash under two compressions would be two objects."""
    endings = list(NAR_EXTENSIONS.values())

    assert len(set(endings)) == len(endings)

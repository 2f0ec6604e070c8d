"""The fingerprint: the bytes that a signature covers."""

from hypothesis import given

from narpost.nix.narinfo import NarInfo
from narpost.nix.path_info import PathInfo
from narpost.nix.store_path import StoreDir
from support.nix_values import path_infos
from support.vectors import HELLO_NARINFO, PLAIN_NARINFO


def test_fingerprint_names_path_hash_size_and_references() -> None:
    """The references are full paths, and the path itself may be one of them."""
    info = NarInfo.parse(HELLO_NARINFO, StoreDir()).info

    fingerprint = info.fingerprint(StoreDir())

    assert fingerprint == (
        b"1;/nix/store/1j5vnm9a3r56jrsylgkynrpf2b0hmsmp-hello"
        b";sha256:0aj3qfbwfwlyq8bw99givdjb6536s5qmavx7ym1ib34ia3lbnrgc;568"
        b";/nix/store/1j5vnm9a3r56jrsylgkynrpf2b0hmsmp-hello"
        b",/nix/store/8vm37iv2pdf3dwawalhbhns0a3iprjz8-dep"
    )


def test_fingerprint_ends_with_a_semicolon_when_nothing_is_referred_to() -> None:
    """The field of the references is there, and empty."""
    info = NarInfo.parse(PLAIN_NARINFO, StoreDir()).info

    fingerprint = info.fingerprint(StoreDir())

    assert fingerprint == (
        b"1;/nix/store/456pycc1lss0n91chzn7ajp8isy5p1lx-plain.txt"
        b";sha256:0rkk4zsq8w7xx0fhgclz9abv3njxyxc6vfbsxpcnmp3ff9rymiss;120;"
    )


@given(path_infos)
def test_fingerprint_follows_the_folder_of_the_store(info: PathInfo) -> None:
    """A path signed for one store is not signed for another."""
    fingerprint = info.fingerprint(StoreDir("/elsewhere"))

    assert fingerprint.startswith(f"1;/elsewhere/{info.path};".encode())
    assert fingerprint.count(b"/elsewhere/") == 1 + len(info.references)


@given(path_infos)
def test_fingerprint_leaves_out_who_built_and_who_signed(info: PathInfo) -> None:
    """Deriver, signatures and content address may change without a new signature."""
    bare = PathInfo(info.path, info.nar_hash, info.nar_bytes, info.references)

    assert bare.fingerprint(StoreDir()) == info.fingerprint(StoreDir())

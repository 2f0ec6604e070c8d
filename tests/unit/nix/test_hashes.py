"""Hashes, in each spelling that `nix hash` writes."""

import base64

import pytest
from hypothesis import given

from narpost.errors import MalformedError
from narpost.nix.hashes import DIGEST_BYTES, Hash
from support.nix_values import hashes

BASE16 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
BASE32 = "1b8m03r63zqhnjf7l5wnldhh7c134ap5vpj0850ymkq1iyzicy5s"
BASE64 = "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0="
OF_ABC = Hash.sha256(bytes.fromhex(BASE16))


@pytest.mark.parametrize(
    "text",
    [
        f"sha256:{BASE32}",
        f"sha256:{BASE16}",
        f"sha256:{BASE16.upper()}",
        f"sha256:{BASE64}",
        f"sha256-{BASE64}",
    ],
)
def test_parses_each_spelling_of_nix(text: str) -> None:
    """Base 16, 32 and 64 and the SRI form name the same hash."""
    assert Hash.parse(text) == OF_ABC


def test_renders_in_base_32() -> None:
    """A hash is written with its algorithm, as in a narinfo."""
    assert OF_ABC.render() == f"sha256:{BASE32}"


@given(hashes)
def test_parsing_undoes_rendering(any_hash: Hash) -> None:
    """Whatever the algorithm and digest, the text leads back to the hash."""
    assert Hash.parse(any_hash.render()) == any_hash


@given(hashes)
def test_parses_every_sri_hash(any_hash: Hash) -> None:
    """The SRI form is read for every algorithm."""
    text = f"{any_hash.algorithm}-{base64.b64encode(any_hash.digest).decode()}"

    assert Hash.parse(text) == any_hash


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256",
        "sha256:",
        "sha256-",
        BASE32,
        f":{BASE32}",
        f"sha257:{BASE32}",
        f"SHA256:{BASE32}",
        f"sha512:{BASE32}",
        f"sha256-{BASE32}",
        f"sha256:{BASE32[:-1]}",
        f"sha256:{BASE32}0",
        f"sha256:{BASE32} ",
        f" sha256:{BASE32}",
        f"sha256:2{BASE32[1:]}",
        f"sha256:e{BASE32[1:]}",
        f"sha256:{BASE16[:-1]}g",
        f"sha256:{BASE64[:-1]}",
        f"sha256:{BASE64[:-2]}*=",
        f"sha256:{'é' * 44}",
    ],
)
def test_refuses_what_is_no_hash(text: str) -> None:
    """A wrong algorithm, length or digit is an error of ours."""
    with pytest.raises(MalformedError):
        Hash.parse(text)


@pytest.mark.parametrize(
    "digits", ["ab" * 31 + "  ", "ab" * 31 + "\n\n", f"{'ab' * 15} {'ab' * 16} "]
)
def test_refuses_spaces_between_base_16_digits(digits: str) -> None:
    """Python's own reader of base 16 skips spaces, which would make the digest too short."""
    with pytest.raises(MalformedError):
        Hash.parse(f"sha256:{digits}")
    with pytest.raises(MalformedError):
        Hash.parse_base16("sha256", digits)


@given(hashes)
def test_parses_bare_base_16(any_hash: Hash) -> None:
    """The worker protocol sends digits without an algorithm."""
    assert Hash.parse_base16(any_hash.algorithm, any_hash.digest.hex()) == any_hash


@pytest.mark.parametrize(
    "digits", ["", "ab" * 31, "ab" * 33, "zz" * 32, BASE32, f"sha256:{BASE16}"]
)
def test_refuses_bad_bare_base_16(digits: str) -> None:
    """Bare digits have to be hexadecimal and of the algorithm's length."""
    with pytest.raises(MalformedError, match="base 16"):
        Hash.parse_base16("sha256", digits)


@given(hashes)
def test_equal_hashes_are_one_key(any_hash: Hash) -> None:
    """Hashes serve as keys of a dictionary, whichever way they were made."""
    again = Hash(any_hash.algorithm, bytes(any_hash.digest))

    assert len(any_hash.digest) == DIGEST_BYTES[any_hash.algorithm]
    assert {any_hash, again} == {any_hash}

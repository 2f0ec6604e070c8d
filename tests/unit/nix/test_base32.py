"""Nix's base 32, beside vectors of `nix-hash --to-base32`."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narpost.errors import MalformedError
from narpost.nix import base32

# Base 16, then what `nix-hash --type … --to-base32` makes of it.
FROM_NIX_HASH = [
    ("d41d8cd98f00b204e9800998ecf8427e", "3y8bwfr609h3lh9ch0izcqq7fl"),
    ("da39a3ee5e6b4b0d3255bfef95601890afd80709", "143xibwh31h9bvxzalr0sjvbbvpa6ffs"),
    (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        "1b8m03r63zqhnjf7l5wnldhh7c134ap5vpj0850ymkq1iyzicy5s",
    ),
    (
        "891d1d623fdd0dc44c20d29d383779625a621ae7998e3dca22238f3dc20e72da"
        "57345fc0924e3db74d5a2d3deaf4bff41619b1c9a81a95b7a28b45cc3c6a8278",
        "1w84siwri2qp8mpjldaijdi34bg9gzlx8yjsnjdnwylx4n0bws5gnkj1v13v3r34b53v3lrww"
        "d64nk2g4vki7fj416c83fx7xi1s7c9",
    ),
    ("00" * 32, "0" * 52),
    ("ff" * 32, "1" + "z" * 51),
    ("01" + "00" * 31, "0" * 51 + "1"),
    ("00" * 31 + "80", "1" + "0" * 51),
]


@pytest.mark.parametrize(("base16", "expected"), FROM_NIX_HASH)
def test_encodes_as_nix_hash_does(base16: str, expected: str) -> None:
    """The digits are those of `nix-hash`, for each kind of hash and at both ends of the range."""
    data = bytes.fromhex(base16)

    text = base32.encode(data)

    assert text == expected


@pytest.mark.parametrize(("base16", "text"), FROM_NIX_HASH)
def test_decodes_what_nix_hash_wrote(base16: str, text: str) -> None:
    """The digits of `nix-hash` give the bytes that it was given."""
    expected = bytes.fromhex(base16)

    data = base32.decode(text)

    assert data == expected


@given(st.binary(max_size=80))
def test_decoding_undoes_encoding(data: bytes) -> None:
    """Any bytes, of any length, come back."""
    text = base32.encode(data)

    assert len(text) == base32.encoded_length(len(data))
    assert base32.decode(text) == data


@given(st.text(base32.ALPHABET, max_size=60))
def test_bytes_have_one_spelling(text: str) -> None:
    """Digits are refused, or are just those that encoding would write."""
    try:
        data = base32.decode(text)
    except MalformedError:
        return

    assert base32.encode(data) == text


@pytest.mark.parametrize("digit", ["e", "o", "t", "u", "A", " ", "=", "\n", "é", "٣"])
def test_refuses_a_letter_that_is_no_digit(digit: str) -> None:
    """Only the 32 digits are taken: no e, o, t, u, no capitals, no padding, no space."""
    text = digit + "0" * 51

    with pytest.raises(MalformedError, match="not base 32"):
        base32.decode(text)


@pytest.mark.parametrize("length", [1, 3, 6, 9, 11, 49])
def test_refuses_a_length_that_no_bytes_have(length: int) -> None:
    """Some numbers of digits are written for no number of bytes."""
    text = "0" * length

    with pytest.raises(MalformedError, match="not base 32"):
        base32.decode(text)


@pytest.mark.parametrize("text", ["2" + "0" * 51, "z" * 52, "80", "h" + "0" * 12])
def test_refuses_a_number_too_high_for_its_bytes(text: str) -> None:
    """A first digit that overflows the bytes is an error, as for `nix-hash`."""
    with pytest.raises(MalformedError, match="first digit is too high"):
        base32.decode(text)

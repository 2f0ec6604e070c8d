"""Keys and signatures, beside those that Nix made."""

import base64
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narpost.errors import MalformedError
from narpost.nix.narinfo import NarInfo
from narpost.nix.signing import PublicKey, SecretKey
from narpost.nix.store_path import StoreDir
from support.vectors import (
    HELLO_NARINFO,
    OTHER_PUBLIC_KEY,
    PLAIN_NARINFO,
    PUBLIC_KEY,
    SECRET_KEY,
)

SECRET_DIGITS = SECRET_KEY.partition(":")[2]
HELLO = NarInfo.parse(HELLO_NARINFO, StoreDir()).info
PLAIN = NarInfo.parse(PLAIN_NARINFO, StoreDir()).info


def test_signs_as_nix_does() -> None:
    """The same key over the same path gives the same signature."""
    secret = SecretKey.parse(SECRET_KEY)

    signature = secret.sign(HELLO.fingerprint(StoreDir()))

    assert (signature,) == HELLO.signatures


def test_finds_the_public_key_as_nix_does() -> None:
    """The public key is the one that Nix wrote beside the secret one."""
    assert SecretKey.parse(SECRET_KEY).public == PublicKey.parse(PUBLIC_KEY)


@pytest.mark.parametrize("text", [SECRET_KEY, f"{SECRET_KEY}\n", f"  {SECRET_KEY}\r\n"])
def test_reads_a_key_file_with_space_around_it(text: str) -> None:
    """Editors end a file with a newline; Nix does not."""
    assert SecretKey.parse(text).render() == SECRET_KEY


def test_writes_the_keys_it_read() -> None:
    """Key files of Nix come out byte for byte."""
    assert SecretKey.parse(SECRET_KEY).render() == SECRET_KEY
    assert PublicKey.parse(PUBLIC_KEY).render() == PUBLIC_KEY


@pytest.mark.parametrize("key", [PUBLIC_KEY, OTHER_PUBLIC_KEY])
def test_accepts_what_nix_signed(key: str) -> None:
    """Each key finds its own among the signatures."""
    public = PublicKey.parse(key)

    assert public.has_signed(PLAIN.fingerprint(StoreDir()), PLAIN.signatures)


def test_a_signature_holds_for_one_path_in_one_store() -> None:
    """Over any other bytes it proves nothing."""
    public = PublicKey.parse(PUBLIC_KEY)

    assert not public.has_signed(PLAIN.fingerprint(StoreDir()), HELLO.signatures)
    assert not public.has_signed(HELLO.fingerprint(StoreDir("/elsewhere")), HELLO.signatures)


def test_a_key_of_the_same_name_is_not_the_same_key() -> None:
    """The name leads to a key but proves nothing."""
    namesake = SecretKey.generate("cache.example.org-1").public

    assert not namesake.has_signed(HELLO.fingerprint(StoreDir()), HELLO.signatures)


def test_a_signature_counts_under_its_own_name_alone() -> None:
    """Clients look a signature up by name, so that a renamed key has signed nothing."""
    renamed = PublicKey("cache.example.org-2", PublicKey.parse(PUBLIC_KEY).key)

    assert not renamed.has_signed(HELLO.fingerprint(StoreDir()), HELLO.signatures)


@pytest.mark.parametrize(
    "signature",
    [
        "",
        ":",
        "cache.example.org-1",
        "cache.example.org-1:",
        "cache.example.org-1:not base 64",
        "cache.example.org-1:é",
        "cache.example.org-1:AAAA",
        f"cache.example.org-1:{base64.b64encode(bytes(64)).decode()}",
        HELLO.signatures[0].partition(":")[2],
        f"{HELLO.signatures[0]}AAAA",
        HELLO.signatures[0][:-4],
    ],
)
def test_a_broken_signature_is_none(signature: str) -> None:
    """It is no error, and a good one beside it still counts."""
    public = PublicKey.parse(PUBLIC_KEY)
    fingerprint = HELLO.fingerprint(StoreDir())

    assert not public.has_signed(fingerprint, [signature])
    assert public.has_signed(fingerprint, [signature, *HELLO.signatures])


@given(st.binary())
def test_a_new_key_verifies_what_it_signed(fingerprint: bytes) -> None:
    """A key of ours goes through its files and still belongs to its signatures."""
    secret = SecretKey.parse(SecretKey.generate("ours-1").render())
    public = PublicKey.parse(secret.public.render())

    signature = secret.sign(fingerprint)

    assert public.has_signed(fingerprint, [signature])
    assert not public.has_signed(fingerprint + b"x", [signature])


@pytest.mark.parametrize("name", ["", "a:b", "a b", "a\n", "\ta"])
def test_refuses_a_name_that_no_key_can_have(name: str) -> None:
    """A colon or space in the name would make files that nobody can read."""
    with pytest.raises(MalformedError, match="cannot name a key"):
        SecretKey.generate(name)


def test_refuses_a_public_key_for_a_secret_one() -> None:
    """The two files of a pair are easily taken for each other, and the error says so."""
    with pytest.raises(MalformedError, match="a public key was given where a secret one belongs"):
        SecretKey.parse(PUBLIC_KEY)


def test_refuses_a_secret_key_for_a_public_one() -> None:
    """Here the error says to make a new pair as well, and shows nothing of this one."""
    with pytest.raises(
        MalformedError, match="a secret key was given where a public one belongs"
    ) as caught:
        PublicKey.parse(SECRET_KEY)

    assert "new pair" in caught.value.hint
    assert_hides_the_secret(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "cache.example.org-1",
        "cache.example.org-1:",
        "cache.example.org-1:AAAA",
        "cache.example.org-1:****",
        SECRET_DIGITS,
        f":{SECRET_DIGITS}",
        f"a name:{SECRET_DIGITS}",
        f"cache.example.org-1:{SECRET_DIGITS[:-2]}",
        f"cache.example.org-1:{SECRET_DIGITS[4:]}",
        f"cache.example.org-1:AAAA{SECRET_DIGITS}",
        f"cache.example.org-1:AAAA{SECRET_DIGITS[4:]}",
        f"cache.example.org-1:{SECRET_DIGITS} {SECRET_DIGITS}",
        f"{SECRET_KEY}\n{SECRET_KEY}",
        f"cache.example.org-1:é{SECRET_DIGITS[1:]}",
        f"{SECRET_DIGITS}:cache",
        f"{SECRET_DIGITS}:{PUBLIC_KEY.partition(':')[2]}",
        f"{SECRET_DIGITS}:{SECRET_DIGITS[4:]}AAAA",
    ],
)
def test_an_error_about_a_secret_key_hides_it(text: str) -> None:
    """Whatever is wrong with the file, the message repeats no part of the key."""
    with pytest.raises(MalformedError) as caught:
        SecretKey.parse(text)

    assert_hides_the_secret(caught.value)


@pytest.mark.parametrize(
    "text", ["", "cache.example.org-1", "cache.example.org-1:AAAA", f"a b:{PUBLIC_KEY}", "a:b:c"]
)
def test_refuses_what_is_no_public_key(text: str) -> None:
    """A name, a colon and 32 bytes are wanted."""
    with pytest.raises(MalformedError, match="public key"):
        PublicKey.parse(text)


def test_refuses_a_secret_key_of_two_pairs() -> None:
    """Its second half is the public key, which has to be that of the first."""
    seed = base64.b64decode(SECRET_DIGITS)[:32]
    stranger = SecretKey.generate("other-1").public.key
    text = f"cache.example.org-1:{base64.b64encode(seed + stranger).decode()}"

    with pytest.raises(MalformedError, match="do not belong together") as caught:
        SecretKey.parse(text)

    assert_hides_the_secret(caught.value)


def test_a_secret_key_shows_its_name_alone() -> None:
    """No log, f-string or dump of a value that holds it can give it away."""
    secret = SecretKey.parse(SECRET_KEY)

    shown = f"{secret} {secret!r} {[secret]} {secret.public}"

    assert "cache.example.org-1" in shown
    assert_hides_the_secret(shown)


def assert_hides_the_secret(shown: object) -> None:
    """Neither *shown* nor, for an error, its hint and traceback have eight digits of the key."""
    seed = base64.b64decode(SECRET_DIGITS)[:32]
    text = f"{shown} {shown!r}"
    if isinstance(shown, MalformedError):
        text += shown.hint + "".join(traceback.format_exception(shown))

    assert repr(seed)[2:-1] not in text
    assert seed.hex() not in text
    assert not [at for at in range(0, 43 - 8) if SECRET_DIGITS[at : at + 8] in text]

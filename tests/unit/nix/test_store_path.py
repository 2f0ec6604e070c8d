"""Store paths, and the folder they lie in."""

import pytest
from hypothesis import given

from narpost.errors import MalformedError
from narpost.nix.store_path import NAME_LENGTH_LIMIT, StoreDir, StorePath
from support.nix_values import hash_parts, names, store_paths

HASH_PART = "1j5vnm9a3r56jrsylgkynrpf2b0hmsmp"
HELLO = StorePath.parse(f"{HASH_PART}-hello")


@given(hash_parts, names)
def test_has_a_hash_part_and_a_name(hash_part: str, name: str) -> None:
    """The name of a path is taken apart where Nix puts it together."""
    path = StorePath.parse(f"{hash_part}-{name}")

    assert (path.hash_part, path.name) == (hash_part, name)
    assert str(path) == f"{hash_part}-{name}"


@pytest.mark.parametrize(
    "base_name",
    [
        "",
        HASH_PART,
        f"{HASH_PART}-",
        f"{HASH_PART}_hello",
        f"{HASH_PART[:-1]}-hello",
        f"{HASH_PART}0-hello",
        f"{HASH_PART.upper()}-hello",
        f"e{HASH_PART[1:]}-hello",
        f"{HASH_PART}-hello world",
        f"{HASH_PART}-hello\n",
        f"{HASH_PART}-hello/bin",
        f"{HASH_PART}-héllo",
        f"{HASH_PART}-.",
        f"{HASH_PART}-..",
        f"{HASH_PART}-.-hello",
        f"{HASH_PART}-..-hello",
        f"{HASH_PART}-{'a' * (NAME_LENGTH_LIMIT + 1)}",
        f"/nix/store/{HASH_PART}-hello",
    ],
)
def test_refuses_what_nix_never_names(base_name: str) -> None:
    """A bad hash part, a bad letter, a name too long or like a relative folder is an error."""
    with pytest.raises(MalformedError, match="not the name of a store path"):
        StorePath.parse(base_name)


@pytest.mark.parametrize("name", ["a" * NAME_LENGTH_LIMIT, ".config", "..config", "a+-._?=Z9"])
def test_takes_names_at_the_edge(name: str) -> None:
    """The longest name, every sign and a dot in front are what Nix takes too."""
    assert StorePath.parse(f"{HASH_PART}-{name}").name == name


@pytest.mark.parametrize(
    ("name", "is_derivation"), [("a.drv", True), ("a", False), ("a.drv.gz", False), ("drv", False)]
)
def test_knows_derivations_by_their_ending(name: str, is_derivation: bool) -> None:
    """A derivation is a path whose name ends with .drv."""
    assert StorePath.parse(f"{HASH_PART}-{name}").is_derivation is is_derivation


@given(store_paths, store_paths)
def test_sorts_as_its_text_does(one: StorePath, other: StorePath) -> None:
    """Paths sort by their base name, as in a fingerprint."""
    assert (one < other) == (str(one) < str(other))


@pytest.mark.parametrize("folder", ["/nix/store", "/tmp/scratch/nix/store"])
@given(path=store_paths)
def test_a_store_reads_what_it_renders(folder: str, path: StorePath) -> None:
    """In any store, the full name of a path leads back to the path."""
    store_dir = StoreDir(folder)

    text = store_dir.render(path)

    assert text == f"{folder}/{path}"
    assert store_dir.parse(text) == path


@pytest.mark.parametrize(
    "text",
    [
        "",
        str(HELLO),
        f"nix/store/{HELLO}",
        f"/nix/store{HELLO}",
        f"/nix/stores/{HELLO}",
        f"/gnu/store/{HELLO}",
        f" /nix/store/{HELLO}",
    ],
)
def test_refuses_a_path_of_another_folder(text: str) -> None:
    """What does not lie in the store is an error that names the store."""
    with pytest.raises(MalformedError, match="not in the store /nix/store"):
        StoreDir().parse(text)


@pytest.mark.parametrize("rest", ["/", "/bin/hello", "\n"])
def test_parse_refuses_a_file_inside_of_a_path(rest: str) -> None:
    """Only the path itself is a store path."""
    with pytest.raises(MalformedError):
        StoreDir().parse(f"/nix/store/{HELLO}{rest}")


@pytest.mark.parametrize("rest", ["", "/", "/bin/hello", "//bin"])
def test_finds_the_path_that_holds_a_file(rest: str) -> None:
    """A file leads to the path that it belongs to, and so does the path itself."""
    assert StoreDir().containing(f"/nix/store/{HELLO}{rest}") == HELLO


@pytest.mark.parametrize("text", ["/nix/store", "/nix/store/", "/nix/store/.links/x", "/etc", ""])
def test_no_path_holds_what_lies_elsewhere(text: str) -> None:
    """The store itself, its hidden folders and other places belong to no path."""
    with pytest.raises(MalformedError):
        StoreDir().containing(text)

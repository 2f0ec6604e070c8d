"""`nix-cache-info`, read and written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narpost.errors import MalformedError
from narpost.nix.cache_info import CacheInfo
from narpost.nix.store_path import StoreDir

FROM_CACHE_NIXOS_ORG = "StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 40\n"
FROM_NIX_COPY = "StoreDir: /nix/store\n"

cache_infos = st.builds(
    CacheInfo,
    store_dir=st.sampled_from(["/nix/store", "/tmp/scratch/nix/store"]).map(StoreDir),
    wants_mass_query=st.none() | st.booleans(),
    priority=st.none() | st.integers(min_value=0, max_value=2**31 - 1),
)


def test_reads_each_field() -> None:
    """The public cache's own file is understood."""
    info = CacheInfo.parse(FROM_CACHE_NIXOS_ORG)

    assert info == CacheInfo(StoreDir("/nix/store"), wants_mass_query=True, priority=40)


def test_what_is_not_said_is_left_open() -> None:
    """Nix writes the folder alone, and leaves the rest to the client's defaults."""
    info = CacheInfo.parse(FROM_NIX_COPY)

    assert info == CacheInfo(StoreDir("/nix/store"), wants_mass_query=None, priority=None)


@pytest.mark.parametrize("text", [FROM_CACHE_NIXOS_ORG, FROM_NIX_COPY])
def test_writes_what_it_read(text: str) -> None:
    """A file of Nix comes out byte for byte."""
    assert CacheInfo.parse(text).render() == text


@given(cache_infos)
def test_parsing_undoes_rendering(info: CacheInfo) -> None:
    """Whatever a cache says of itself, the text leads back to it."""
    assert CacheInfo.parse(info.render()) == info


def test_passes_over_what_it_does_not_know() -> None:
    """Fields of a later Nix, lines that are no fields, and a missing last newline do no harm."""
    text = "# a note\nStoreDir: /nix/store\nFuture: yes\n\nPriority: 7"

    assert CacheInfo.parse(text) == CacheInfo(StoreDir("/nix/store"), priority=7)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "WantMassQuery: 1\n",
        "storedir: /nix/store\n",
        "StoreDir /nix/store\n",
        "StoreDir: /nix/store\nPriority: high\n",
        "StoreDir: /nix/store\nPriority: 4.5\n",
        "StoreDir: /nix/store\nPriority:\n",
        "<html><title>404: Not Found</title></html>",
    ],
)
def test_refuses_a_file_without_folder_or_with_a_bad_priority(text: str) -> None:
    """A file that does not say which store it is for is no cache's."""
    with pytest.raises(MalformedError, match="nix-cache-info"):
        CacheInfo.parse(text)


@pytest.mark.parametrize("folder", ["", "nix/store"])
def test_refuses_a_folder_that_is_no_absolute_path(folder: str) -> None:
    """A folder that is empty or relative names no store."""
    with pytest.raises(MalformedError, match="nix-cache-info"):
        CacheInfo.parse(f"StoreDir: {folder}\n")

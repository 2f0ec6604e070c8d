"""Hypothesis strategies for Nix's values: any that Nix itself could hold."""

import string

from hypothesis import strategies as st

from narpost.nix import base32
from narpost.nix.cache_names import NAR_EXTENSIONS
from narpost.nix.hashes import DIGEST_BYTES, Hash
from narpost.nix.narinfo import NarInfo
from narpost.nix.path_info import PathInfo
from narpost.nix.store_path import HASH_PART_LENGTH, NAME_LENGTH_LIMIT, StorePath

NAME_LETTERS = string.ascii_letters + string.digits + "+-._?="

sizes = st.integers(min_value=1, max_value=2**63 - 1)

hashes = st.sampled_from(sorted(DIGEST_BYTES)).flatmap(
    lambda algorithm: st.builds(
        Hash,
        st.just(algorithm),
        st.binary(min_size=DIGEST_BYTES[algorithm], max_size=DIGEST_BYTES[algorithm]),
    )
)

sha256_hashes = st.binary(min_size=32, max_size=32).map(Hash.sha256)

hash_parts = st.text(base32.ALPHABET, min_size=HASH_PART_LENGTH, max_size=HASH_PART_LENGTH)

names = st.text(NAME_LETTERS, min_size=1, max_size=NAME_LENGTH_LIMIT).filter(
    lambda name: not name.startswith(".")
)

store_paths = st.builds("{}-{}".format, hash_parts, names).map(StorePath.parse)

signatures = st.builds(
    "{}:{}".format,
    st.text(string.ascii_letters + string.digits + ".-", min_size=1, max_size=20),
    st.text(string.ascii_letters + string.digits + "+/", min_size=86, max_size=86).map(
        lambda digits: f"{digits}=="
    ),
)

path_infos = st.builds(
    PathInfo,
    path=store_paths,
    nar_hash=sha256_hashes,
    nar_bytes=sizes,
    references=st.sets(store_paths, max_size=4).map(lambda paths: tuple(sorted(paths))),
    deriver=st.none() | store_paths,
    signatures=st.lists(signatures, max_size=3).map(tuple),
    content_address=st.sampled_from(["", "text:sha256:", "fixed:r:sha256:"]).flatmap(
        lambda method: st.just("") if not method else hashes.map(lambda it: method + it.digits)
    ),
)

narinfos = st.builds(
    NarInfo,
    info=path_infos,
    url=st.text(string.ascii_letters + string.digits + "/.-_%?=:", min_size=1),
    compression=st.sampled_from(sorted(NAR_EXTENSIONS)),
    file_hash=st.none() | sha256_hashes,
    file_bytes=st.none() | sizes,
)

"""The names of the objects in a binary cache."""

from narpost.nix.hashes import Hash
from narpost.nix.store_path import StorePath

CACHE_INFO = "nix-cache-info"
NAR_FOLDER = "nar"
NARINFO_TYPE = "text/x-nix-narinfo"
NAR_TYPE = "application/x-nix-nar"
CACHE_INFO_TYPE = "text/x-nix-cache-info"

NAR_EXTENSIONS = {"none": "", "zstd": ".zst", "xz": ".xz", "bzip2": ".bz2", "gzip": ".gz"}


def narinfo_key(path: StorePath) -> str:
    """`<hash part>.narinfo`."""
    return f"{path.hash_part}.narinfo"


def nar_key(file_hash: Hash, compression: str) -> str:
    """`nar/<FileHash>.nar.zst`: same name, same bytes."""
    return f"{NAR_FOLDER}/{file_hash.digits}.nar{NAR_EXTENSIONS[compression]}"

"""What a binary cache promises to its readers, checked from the outside."""

import bz2
import gzip
import hashlib
import lzma
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import zstandard

from narpost.nix.cache_names import narinfo_key
from narpost.nix.hashes import Hash
from narpost.nix.narinfo import NarInfo
from narpost.nix.signing import PublicKey
from narpost.nix.store_path import StoreDir

DECOMPRESSORS: Mapping[str, Callable[[bytes], bytes]] = {
    "none": bytes,
    "zstd": lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data),
    "xz": lzma.decompress,
    "bzip2": bz2.decompress,
    "gzip": gzip.decompress,
}


class PublishedCache(ABC):
    """A cache for the store *store_dir*, as its readers see it, while others may write to it."""

    store_dir: StoreDir

    @abstractmethod
    def keys(self) -> set[str]:
        """The names of all objects."""

    @abstractmethod
    def read(self, key: str) -> bytes:
        """The object *key*, which is there."""

    def narinfos(self) -> list[NarInfo]:
        """All that readers can see; a narinfo that cannot be read is an error."""
        keys = sorted(key for key in self.keys() if key.endswith(".narinfo"))
        return [NarInfo.parse(self.read(key).decode(), self.store_dir) for key in keys]

    def paths(self) -> set[str]:
        """The full names of the store paths that readers can see."""
        return {self.store_dir.render(narinfo.info.path) for narinfo in self.narinfos()}

    def broken_promises(self, key: PublicKey | None) -> list[str]:
        """A line for each promise that a narinfo makes and the cache does not keep.

        A narinfo says that its NAR is there with these hashes and sizes, that *key* has signed
        it, and that each of its references is there too.
        """
        narinfos = self.narinfos()
        # Only now: what a narinfo promises was there before it.
        there = self.keys()
        broken: list[str] = []
        for narinfo in narinfos:
            references = narinfo.info.references
            missing = [each for each in references if narinfo_key(each) not in there]
            complaints = [f"{path} is missing" for path in missing]
            complaints += self._complaints(narinfo, there)
            if key is not None and not self._is_signed(narinfo, key):
                complaints.append(f"{key.name} has not signed it")
            broken += [f"{narinfo.info.path}: {complaint}" for complaint in complaints]
        return broken

    def _complaints(self, narinfo: NarInfo, there: Collection[str]) -> Iterator[str]:
        if narinfo.url not in there:
            yield f"{narinfo.url} is missing"
            return
        packed = self.read(narinfo.url)
        if (_sha256(packed), len(packed)) != (narinfo.file_hash, narinfo.file_bytes):
            yield f"{narinfo.url} has another FileHash or FileSize"
            return
        nar = DECOMPRESSORS[narinfo.compression](packed)
        if (_sha256(nar), len(nar)) != (narinfo.info.nar_hash, narinfo.info.nar_bytes):
            yield f"{narinfo.url} has another NarHash or NarSize"

    def _is_signed(self, narinfo: NarInfo, key: PublicKey) -> bool:
        return key.has_signed(narinfo.info.fingerprint(self.store_dir), narinfo.info.signatures)


@dataclass(frozen=True, slots=True)
class FolderCache(PublishedCache):
    """The cache in *folder*."""

    folder: Path
    store_dir: StoreDir

    def keys(self) -> set[str]:
        """The names of all files, from the cache's folder on."""
        files = (file for file in self.folder.rglob("*") if file.is_file())
        return {str(file.relative_to(self.folder)) for file in files}

    def read(self, key: str) -> bytes:
        """The file *key*, which is there."""
        return (self.folder / key).read_bytes()


def _sha256(data: bytes) -> Hash:
    return Hash.sha256(hashlib.sha256(data).digest())

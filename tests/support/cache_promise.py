"""What a binary cache in a folder promises to its readers, checked from the outside."""

import bz2
import gzip
import hashlib
import lzma
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import zstandard

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


@dataclass(frozen=True, slots=True)
class FolderCache:
    """The cache in *folder*, for the store *store_dir*."""

    folder: Path
    store_dir: StoreDir

    def narinfos(self) -> list[NarInfo]:
        """All that readers can see; a narinfo that cannot be read is an error."""
        files = sorted(self.folder.glob("*.narinfo"))
        return [NarInfo.parse(file.read_text(), self.store_dir) for file in files]

    def paths(self) -> set[str]:
        """The full names of the store paths that readers can see."""
        return {self.store_dir.render(narinfo.info.path) for narinfo in self.narinfos()}

    def broken_promises(self, key: PublicKey | None) -> list[str]:
        """A line for each promise that a narinfo makes and the cache does not keep.

        A narinfo says that its NAR is there with these hashes and sizes, that *key* has signed
        it, and that each of its references is there too.
        """
        narinfos = self.narinfos()
        there = {narinfo.info.path for narinfo in narinfos}
        broken: list[str] = []
        for narinfo in narinfos:
            missing = set(narinfo.info.references) - there
            complaints = [*self._complaints(narinfo), *(f"{path} is missing" for path in missing)]
            if key is not None and not self._is_signed(narinfo, key):
                complaints.append(f"{key.name} has not signed it")
            broken += [f"{narinfo.info.path}: {complaint}" for complaint in complaints]
        return broken

    def _complaints(self, narinfo: NarInfo) -> Iterator[str]:
        file = self.folder / narinfo.url
        if not file.is_file():
            yield f"{narinfo.url} is missing"
            return
        packed = file.read_bytes()
        if (_sha256(packed), len(packed)) != (narinfo.file_hash, narinfo.file_bytes):
            yield f"{narinfo.url} has another FileHash or FileSize"
            return
        nar = DECOMPRESSORS[narinfo.compression](packed)
        if (_sha256(nar), len(nar)) != (narinfo.info.nar_hash, narinfo.info.nar_bytes):
            yield f"{narinfo.url} has another NarHash or NarSize"

    def _is_signed(self, narinfo: NarInfo, key: PublicKey) -> bool:
        return key.has_signed(narinfo.info.fingerprint(self.store_dir), narinfo.info.signatures)


def _sha256(data: bytes) -> Hash:
    return Hash.sha256(hashlib.sha256(data).digest())

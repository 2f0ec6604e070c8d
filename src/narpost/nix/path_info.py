"""What Nix has registered about a store path."""

from dataclasses import dataclass

from narpost.nix.hashes import Hash
from narpost.nix.store_path import StoreDir, StorePath


@dataclass(frozen=True, slots=True)
class PathInfo:
    """A valid path: its NAR, its references, and who vouches for it.

    *nar_bytes* is the size of the NAR; *references* are sorted and may include the path
    itself; *signatures* are `<key name>:<base 64>`; *content_address* is empty for a path that
    is named by its inputs; *is_ultimate* says that this store built it.
    """

    path: StorePath
    nar_hash: Hash
    nar_bytes: int
    references: tuple[StorePath, ...] = ()
    deriver: StorePath | None = None
    signatures: tuple[str, ...] = ()
    content_address: str = ""
    is_ultimate: bool = False

    def fingerprint(self, store_dir: StoreDir) -> bytes:
        """The bytes that are signed (`ValidPathInfo::fingerprint` in Nix)."""
        references = ",".join(map(store_dir.render, self.references))
        return (
            f"1;{store_dir.render(self.path)};{self.nar_hash.render()};{self.nar_bytes};{references}"
        ).encode()

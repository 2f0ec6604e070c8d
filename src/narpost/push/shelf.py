"""Packed files on the disk: kept for the next try, also by another daemon after a crash.

A file's name holds the path, the hash of its NAR and that of the packed form: what is found can be
checked, is what the store has registered now, and is nobody else's.
"""

import contextlib
import hashlib
import itertools
import shutil
import time
from collections.abc import Collection
from pathlib import Path

from narpost.nix.hashes import Hash
from narpost.nix.path_info import PathInfo

KEPT_SECONDS = 7 * 86400.0
_PARTIAL = ".partial"


class Shelf:
    """The files in *folder*; *limit_bytes* of them may stay there after a try in vain."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self.folder = folder
        self._limit_bytes = limit_bytes
        self._numbers = itertools.count()

    def prepare(self) -> None:
        """Make the folder."""
        self.folder.mkdir(parents=True, exist_ok=True)

    def clear(self) -> None:
        """Clear away what is not whole, or too old to be wanted: only for who has the lock."""
        for file in self.folder.iterdir():
            with contextlib.suppress(OSError):  # It may lie there for another time.
                is_old = time.time() - file.stat().st_mtime > KEPT_SECONDS
                if is_old or file.name.endswith(_PARTIAL):
                    file.unlink()

    def names(self) -> list[str]:
        """The names, by FileHash, of what lies here whole: `<FileHash>.nar.zst`."""
        return [file.name.rpartition("-")[2] for file in self._whole("*")]

    def find(self, info: PathInfo, extension: str) -> tuple[Path, Hash] | None:
        """The packed NAR of a path and its FileHash, if it is here and sound."""
        for file in self._whole(f"{info.path.hash_part}-{info.nar_hash.digits}-*"):
            file_hash = _hash(file)
            if file.name == _name(info, file_hash, extension):
                return file, file_hash
            file.unlink(missing_ok=True)
        return None

    def begin(self) -> Path:
        """A file to write to; the folder may have been deleted meanwhile."""
        self.folder.mkdir(parents=True, exist_ok=True)
        # Another each time: an earlier try may still be about to remove its own.
        return self.folder / f"{next(self._numbers)}{_PARTIAL}"

    def finish(self, partial: Path, info: PathInfo, file_hash: Hash, extension: str) -> Path:
        """*partial* is whole: give it its name."""
        return partial.replace(self.folder / _name(info, file_hash, extension))

    def keep(self, file: Path) -> None:
        """It was not sent: leave it for the next try, if there is room."""
        sizes = 0
        for each in self._whole("*"):
            with contextlib.suppress(FileNotFoundError):
                sizes += each.stat().st_size
        if sizes > self._limit_bytes:
            file.unlink(missing_ok=True)

    def _whole(self, pattern: str) -> list[Path]:
        return [file for file in self.folder.glob(pattern) if not file.name.endswith(_PARTIAL)]


def clear_others(folder: Path, names: Collection[str]) -> None:
    """Clear away, in the *folder* of all shelves, those that have none of *names* any more."""
    for each in folder.glob("*"):
        if each.name not in names:
            shutil.rmtree(each, ignore_errors=True)


def _name(info: PathInfo, file_hash: Hash, extension: str) -> str:
    return f"{info.path.hash_part}-{info.nar_hash.digits}-{file_hash.digits}.nar{extension}"


def _hash(file: Path) -> Hash:
    with file.open("rb") as source:
        return Hash.sha256(hashlib.file_digest(source, "sha256").digest())

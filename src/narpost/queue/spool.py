"""The folder of links: each is a job, and keeps its store path from the garbage collector.

`queue/<name>` leads to `<store>/<name>`, in a real folder below Nix's `gcroots`, since Nix does
not follow a link to a folder there. The folder is the truth: whatever else is lost, what is
queued is what lies in it.
"""

import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from narpost.errors import MalformedError, NarpostError, UsageError
from narpost.nix.store_path import StoreDir, StorePath

FOLDER = "queue"
# Links that are being made anew; the process that does it is in the name.
_BESIDE = ".new-"


@dataclass(frozen=True, slots=True)
class Entry:
    """A link into the store, and when it was made (seconds since the epoch)."""

    path: StorePath
    queued_at: float


@dataclass(frozen=True, slots=True)
class Sight:
    """One look at the folder: what is new, what has gone, and what is not ours."""

    entries: list[Entry] = field(default_factory=list)
    gone: list[StorePath] = field(default_factory=list)
    strays: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Mark:
    """Tells a link from a later one: two may be made within one tick of the clock."""

    inode: int
    made_at: float


class Spool:
    """The links in `<directory>/queue`."""

    def __init__(self, directory: Path, store_dir: StoreDir) -> None:
        self.directory = directory
        self.folder = directory / FOLDER
        self._store_dir = store_dir

    def prepare(self, gcroots: Path) -> None:
        """Make the folder, and see that Nix takes its links for roots."""
        # Nix walks real folders below gcroots, and follows no link to a folder elsewhere.
        if not self.folder.resolve().is_relative_to(gcroots.resolve()):
            raise UsageError(
                f"Nix would not keep what is queued in {self.folder}",
                f"set directory in the section [queue] to a real folder below {gcroots}",
            )
        self.make()

    def make(self) -> None:
        """Make the folder, if it is not there."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _cannot("make the queue folder", self.folder, error) from error

    def look(self, known: Collection[StorePath] = ()) -> Sight:
        """Compare the folder with what is *known* of it."""
        sight = Sight()
        try:
            names = set(os.listdir(self.folder))  # noqa: PTH208, a third of the time of iterdir
        except OSError as error:
            raise _cannot("read the queue folder", self.folder, error) from error
        known_names = {path.base_name for path in known}
        for name in names - known_names:
            self._see(name, sight)
        sight.gone.extend(path for path in known if path.base_name not in names)
        return sight

    def queued(self) -> list[Entry]:
        """All entries; none where the folder was never made."""
        return self.look().entries if self.folder.is_dir() else []

    def add(self, paths: Iterable[StorePath]) -> None:
        """Queue *paths*; one that is queued already stays so."""
        for path in paths:
            try:
                self._link(path).symlink_to(self._store_dir.render(path))
            except FileExistsError:
                if not self._leads_to(path):  # Something else lies there, and keeps nothing.
                    self.renew(path)
            except OSError as error:
                raise _cannot(f"queue {path} in", self.folder, error) from error

    def renew(self, path: StorePath) -> None:
        """Make the link of *path* anew, which tells a daemon that set it aside to try again."""
        beside = self.directory / f"{_BESIDE}{os.getpid()}-{path.base_name}"
        try:
            beside.unlink(missing_ok=True)
            beside.symlink_to(self._store_dir.render(path))
            beside.replace(self._link(path))
        except OSError as error:
            raise _cannot(f"queue {path} in", self.folder, error) from error

    def clear(self) -> None:
        """Let go of what a command was killed over while it made a link anew."""
        for link in self.directory.glob(f"{_BESIDE}*"):
            process = link.name.removeprefix(_BESIDE).partition("-")[0]
            if link.is_symlink() and not Path("/proc", process).exists():
                link.unlink(missing_ok=True)

    def mark(self, path: StorePath) -> Mark | None:
        """What tells the link of *path* from one that is made later; none if it is gone."""
        try:
            found = self._link(path).lstat()
        except FileNotFoundError:
            return None
        return Mark(found.st_ino, found.st_mtime)

    def holds(self, path: StorePath) -> bool:
        """Whether *path* is queued."""
        return self._link(path).is_symlink()

    def remove(self, path: StorePath) -> None:
        """Let go of *path*; from here on the garbage collector may take it."""
        try:
            self._link(path).unlink(missing_ok=True)
        except IsADirectoryError:
            return  # Somebody put it there in the link's place: a stray, and not ours to remove.
        except OSError as error:
            raise _cannot(f"take {path} out of", self.folder, error) from error

    def _leads_to(self, path: StorePath) -> bool:
        try:
            return _target(self._link(path)) == self._store_dir.render(path)
        except OSError:
            return False

    def _link(self, path: StorePath) -> Path:
        return self.folder / path.base_name

    def _see(self, name: str, sight: Sight) -> None:
        link = self.folder / name
        try:
            path = self._store_dir.parse(_target(link))
            if path.base_name != name:
                raise MalformedError(f"it leads to {path}")
            sight.entries.append(Entry(path, link.lstat().st_mtime))
        except FileNotFoundError:
            return  # It went between the listing and this look.
        except OSError:
            sight.strays[name] = "it is not a link"
        except MalformedError as error:
            sight.strays[name] = error.message


def _target(link: Path) -> str:
    # Not Path.readlink, which mends spellings that Nix does not take for a root.
    return os.readlink(link)  # noqa: PTH115


def _cannot(doing: str, folder: Path, error: OSError) -> NarpostError:
    reason = (error.strerror or str(error)).lower()
    hint = "move away what lies there, or set directory in the section [queue]"
    if isinstance(error, PermissionError):
        hint = "run this as the user that runs the daemon, mostly root: sudo narpost …"
    return UsageError(f"cannot {doing} {folder}: {reason}", hint)

"""Mounts that nobody sees but the processes of a test."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = ("mount", "nsenter", "setpriv", "unshare")
COMMAND_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class MountNamespace:
    """A namespace that starts with the mounts of this machine; the process *holder* keeps it."""

    holder: int

    @property
    def enter(self) -> tuple[str, ...]:
        """What to put before a command to run it there."""
        return ("nsenter", f"--mount=/proc/{self.holder}/ns/mnt")

    def mount(self, *arguments: str | Path) -> None:
        """Call `mount` there."""
        _run([*self.enter, "mount", *map(str, arguments)])

    def seen(self, path: Path) -> Path:
        """What lies at *path* there, for one who is outside."""
        return Path(f"/proc/{self.holder}/root{path}")


def missing() -> list[str]:
    """Name what it takes to mount, and this machine or this user lacks."""
    programs = [program for program in PROGRAMS if shutil.which(program) is None]
    if programs or os.geteuid() != 0:
        return programs or ["unshare --mount (as root)"]
    allowed = subprocess.run(
        ["unshare", "--mount", "true"], capture_output=True, timeout=COMMAND_SECONDS, check=False
    )
    return [] if allowed.returncode == 0 else ["unshare --mount (which this kernel refuses us)"]


@contextmanager
def private_mounts() -> Iterator[MountNamespace]:
    """A namespace of mounts that is gone, with all that was mounted, when the block ends.

    If the tests are killed the kernel ends it too, by its holder's parent death signal.
    """
    holder = subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "sh", "-c", "echo; exec cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with holder:
        try:
            # It has left our namespace as soon as it says something.
            assert holder.stdout is not None
            holder.stdout.readline()
            yield MountNamespace(holder.pid)
        finally:
            holder.kill()


def _run(command: list[str]) -> None:
    subprocess.run(command, capture_output=True, timeout=COMMAND_SECONDS, check=True)

"""One daemon works on one queue: the lock that says so."""

import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path

from narpost.errors import UsageError

FILE = "lock"
_PATIENCE_SECONDS = 1.0
_STEP_SECONDS = 0.05


class LockTaken(UsageError):
    """Another daemon has the lock."""


class DaemonLock:
    """A lock on `<directory>/lock`, let go by the kernel whenever its holder ends."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / FILE
        self._held: int | None = None

    def is_held(self) -> bool:
        """Whether a daemon works on this queue."""
        try:
            handle = os.open(self._file, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise self._cannot(error) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(handle)
        return False

    def take(self, sleep: Callable[[float], None] = time.sleep) -> None:
        """Take the lock; where another daemon has it, that is a `UsageError`."""
        try:
            handle = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise self._cannot(error) from error
        # Those who ask whether it is held hold it themselves for an instant.
        for _ in range(int(_PATIENCE_SECONDS / _STEP_SECONDS)):
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                sleep(_STEP_SECONDS)
            else:
                self._held = handle
                return
        os.close(handle)
        raise LockTaken(
            f"another narpost daemon works on the queue {self._file.parent}",
            "see it with: systemctl status narpost; two daemons need two queues",
        )

    def _cannot(self, error: OSError) -> UsageError:
        return UsageError(
            f"cannot open {self._file}: {(error.strerror or str(error)).lower()}",
            "run this as the user that runs the daemon, mostly root: sudo narpost …",
        )

    def release(self) -> None:
        """Let another take it."""
        if self._held is not None:
            os.close(self._held)
            self._held = None

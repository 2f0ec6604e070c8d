"""This machine's store, through its daemon's socket or through a daemon of our own.

Nix itself reads the store: in another process, by its own rules, and with its own rights.
"""

import os
import shutil
import socket
import struct
import subprocess
import tempfile
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from narpost.errors import StoreUnreachable, UsageError
from narpost.nix.path_info import PathInfo
from narpost.nix.store_path import StoreDir, StorePath
from narpost.store.connection import Connection
from narpost.store.place import Place

# Nix may read a slow disk before it answers; a stream that is silent for longer has stalled.
STALL_SECONDS = 120.0

Dial = Callable[[], Connection]


class LocalStore:
    """A pool of connections that keeps the promise of `Store`."""

    def __init__(self, store_dir: StoreDir, dial: Dial) -> None:
        self.store_dir = store_dir
        self._dial = dial
        self._idle: list[Connection] = []
        self._lock = threading.Lock()

    @classmethod
    def open(cls, spec: str, place: Place, *, stall_seconds: float = STALL_SECONDS) -> Self:
        """The store that *spec* names: auto, local, daemon, or unix:///path/to/socket."""
        return cls(place.store_dir, _dialler(spec, place, stall_seconds))

    def closure(self, paths: Iterable[StorePath]) -> dict[StorePath, PathInfo]:
        """Breadth first, a level of the closure at a time."""
        found: dict[StorePath, PathInfo] = {}
        asked = frontier = set(paths)
        with self._lease() as connection:
            while frontier:
                level = connection.path_infos(sorted(frontier))
                found |= level
                frontier = {path for info in level.values() for path in info.references} - asked
                asked = asked | frontier
        return found

    def valid_paths(self, paths: Iterable[StorePath]) -> set[StorePath]:
        """Those of *paths* that are in the store."""
        with self._lease() as connection:
            return connection.valid_paths(paths)

    def built_paths(self) -> set[StorePath]:
        """Those that were built here, and neither copied nor substituted."""
        with self._lease() as connection:
            infos = connection.path_infos(sorted(connection.all_valid_paths()))
        return {path for path, info in infos.items() if info.is_ultimate}

    def outputs(self, derivation: StorePath) -> list[StorePath]:
        """The outputs of *derivation* that are known, valid or not."""
        with self._lease() as connection:
            return connection.outputs(derivation)

    @contextmanager
    def nar(self, info: PathInfo) -> Iterator[Iterator[bytes]]:
        """The path's NAR; an error inside of the context gives the connection up."""
        with self._lease() as connection:
            yield connection.nar(info.path, info.nar_bytes)

    def nars(self, infos: Sequence[PathInfo]) -> Generator[bytes]:
        """The NARs of small paths; one who stops before the end gives the connection up."""
        with self._lease() as connection:
            yield from connection.nars(infos)

    def close(self) -> None:
        """Hang up all connections that are not in use."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.hang_up()
        for connection in idle:
            connection.close()

    @contextmanager
    def _lease(self) -> Iterator[Connection]:
        connection = self._take() or self._dial()
        is_reusable = False
        try:
            yield connection
            is_reusable = connection.is_whole
        finally:
            if is_reusable:
                with self._lock:
                    self._idle.append(connection)
            else:
                connection.close()

    def _take(self) -> Connection | None:
        while True:
            with self._lock:
                connection = self._idle.pop() if self._idle else None
            if connection is None or connection.is_idle():
                return connection
            connection.close()


def _dialler(spec: str, place: Place, stall_seconds: float) -> Dial:
    if spec == "auto":
        spec = place.remote or ("daemon" if place.daemon_socket.exists() else "local")
    if spec == "local":
        return lambda: _spawn(place.store_dir, stall_seconds)
    if spec == "daemon":
        return lambda: _connect(place.daemon_socket, place.store_dir, stall_seconds)
    if spec.startswith("unix:///"):
        path = Path(spec.removeprefix("unix://").partition("?")[0])
        return lambda: _connect(path, place.store_dir, stall_seconds)
    raise UsageError(
        f"{spec!r} is not a store that narpost can read",
        "write auto, local, daemon, or unix:///path/to/socket",
    )


def _connect(path: Path, store_dir: StoreDir, stall_seconds: float) -> Connection:
    stream = socket.socket(socket.AF_UNIX)
    # Not settimeout: a socket that does not block is refused while others wait for the daemon.
    bound = struct.pack("ll", int(stall_seconds), 0)
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, bound)
    try:
        stream.connect(str(path))
    except OSError as error:
        stream.close()
        raise StoreUnreachable(
            f"cannot reach the Nix daemon at {path}: {error.strerror or error}",
            "start it with: systemctl start nix-daemon",
        ) from error
    return Connection(stream, store_dir, stall_seconds=stall_seconds)


def _spawn(store_dir: StoreDir, stall_seconds: float) -> Connection:
    """Start `nix-daemon --stdio` on the other end of a socket."""
    program = shutil.which("nix-daemon")
    if program is None:
        raise StoreUnreachable(
            "cannot read the store: there is neither a Nix daemon nor the program nix-daemon",
            "install Nix or Lix, or name the daemon's socket as store in the section [nix]",
        )
    try:
        return _served_by(program, store_dir, stall_seconds)
    except OSError as error:
        raise StoreUnreachable(
            f"cannot start {program}: {(error.strerror or str(error)).lower()}"
        ) from error


def _served_by(program: str, store_dir: StoreDir, stall_seconds: float) -> Connection:
    ours, theirs = socket.socketpair()
    with tempfile.TemporaryFile() as said:
        with theirs:
            # A session of its own, so that Ctrl-C reaches us and not the NAR that it is sending.
            # NIX_REMOTE=local, since a daemon that forwards to another cannot do so to a socket.
            child = subprocess.Popen(
                [program, "--stdio"],
                env=os.environ | {"NIX_REMOTE": "local"},
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=said,
                start_new_session=True,
            )

        def reap() -> None:
            try:
                child.wait(timeout=5)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

        try:
            return Connection(ours, store_dir, stall_seconds=stall_seconds, on_close=reap)
        except StoreUnreachable as error:
            said.seek(0)
            reason = said.read().decode(errors="replace").strip().removeprefix("error: ")
            if not reason:
                raise
            raise StoreUnreachable(
                f"nix-daemon --stdio failed: {reason}",
                "mend what it names; nix-daemon --stdio </dev/null says it again",
            ) from error

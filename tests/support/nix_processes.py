"""The processes of Nix that the tests started: which they are, and how they end."""

import os
import select
import signal
import socket
import struct
from contextlib import suppress
from pathlib import Path

from support.private_store import PrivateStore

WAIT_SECONDS = 10.0


def serving(nix: PrivateStore) -> list[int]:
    """The processes of Nix that serve a connection of ours: its daemon's children, or our own."""
    listener = listening_process(nix.socket)
    return children(os.getpid() if listener is None else listener)


def listening_process(path: Path) -> int | None:
    """Who listens on the socket *path*."""
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
        except FileNotFoundError:
            return None
        credentials = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    pid: int = struct.unpack("3i", credentials)[0]
    return pid


def children(parent: int) -> list[int]:
    """The processes of Nix that *parent* has started and that run."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, _, rest = status.read_text().partition(" (")
        except (FileNotFoundError, ProcessLookupError):
            continue
        name, _, fields = rest.rpartition(") ")
        state, ppid = fields.split()[:2]
        if name == "nix-daemon" and int(ppid) == parent and state != "Z":
            found.append(int(pid))
    return found


def kill(pids: list[int]) -> None:
    """Kill processes of Nix, and wait until they are gone with all their threads."""
    assert pids
    for pid in pids:
        # One that served nobody but `listening_process` has ended by itself.
        with suppress(ProcessLookupError):
            handle = os.pidfd_open(pid)
            with os.fdopen(handle):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
                assert select.select([handle], [], [], WAIT_SECONDS)[0]

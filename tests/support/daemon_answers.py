"""What a Nix daemon says over its worker protocol, as bytes, and a peer that says any bytes."""

import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from narpost.nix.path_info import PathInfo
from narpost.nix.store_path import StoreDir, StorePath
from narpost.store.connection import Told

MAGIC = 0x6478696F
SEND_SECONDS = 10.0


def number(value: int) -> bytes:
    """One number."""
    return value.to_bytes(8, "little")


def string(text: str | bytes) -> bytes:
    """One string, padded to eight bytes."""
    data = text if isinstance(text, bytes) else text.encode()
    return number(len(data)) + data + bytes(-len(data) % 8)


def strings(texts: Iterable[str]) -> bytes:
    """A list of strings."""
    items = list(texts)
    return number(len(items)) + b"".join(map(string, items))


LAST = number(Told.LAST)
GREETING = number(MAGIC) + number(1 << 8 | 38) + string("2.34.0") + number(1) + LAST
CHATTER = b"".join(
    [
        number(Told.NEXT) + string("warning: the daemon is talkative\n"),
        number(Told.START_ACTIVITY) + b"".join(map(number, (1, 3, 105))) + string("copying"),
        number(2) + number(0) + number(42) + number(1) + string("a field") + number(0),
        number(Told.RESULT) + number(1) + number(106) + number(1) + number(0) + number(7),
        number(Told.STOP_ACTIVITY) + number(1),
    ]
)


def error(message: str | bytes) -> bytes:
    """The daemon's answer where it has failed."""
    parts = (number(Told.ERROR), string("Error"), number(0), string("Error"), string(message))
    return b"".join(parts) + number(0) + number(0)


def described(info: PathInfo, store_dir: StoreDir) -> bytes:
    """The answer for a valid path, from its `LAST` on."""
    deriver = "" if info.deriver is None else store_dir.render(info.deriver)
    return b"".join(
        [
            LAST,
            number(1),
            string(deriver),
            string(info.nar_hash.digest.hex()),
            strings(map(store_dir.render, info.references)),
            number(1_700_000_000),
            number(info.nar_bytes),
            number(info.is_ultimate),
            strings(info.signatures),
            string(info.content_address),
        ]
    )


def listed(paths: Iterable[StorePath], store_dir: StoreDir) -> bytes:
    """The answer that is a list of paths."""
    return LAST + strings(map(store_dir.render, paths))


def mapped(outputs: Iterable[tuple[str, StorePath]], store_dir: StoreDir) -> bytes:
    """The answer that has the outputs of a derivation."""
    pairs = [string(name) + string(store_dir.render(path)) for name, path in outputs]
    return LAST + number(len(pairs)) + b"".join(pairs)


@contextmanager
def peer_saying(data: bytes, *, is_silent_then: bool = False) -> Iterator[socket.socket]:
    """Our end of a connection whose other end says *data*, and then hangs up or is silent.

    All of it is said at once, so it must fit into the kernel's buffer: some 200 KB.
    """
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.settimeout(SEND_SECONDS)
        theirs.sendall(data)
        if not is_silent_then:
            theirs.shutdown(socket.SHUT_WR)
        yield ours

"""A private store as our own code opens it: by a child of ours, or by a daemon that runs."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from narpost.nix.path_info import PathInfo
from narpost.nix.store_path import StorePath
from narpost.store.local import LocalStore
from narpost.store.place import Place
from support.private_store import PrivateStore

# By a child `nix-daemon --stdio`, or by the socket of a daemon.
WAYS = ("local", "daemon")
STALL_SECONDS = 20.0


@contextmanager
def within(nix: PrivateStore) -> Iterator[Place]:
    """Make the environment of *nix* that of this process, and yield the place it describes."""
    environment = nix.environment()
    with pytest.MonkeyPatch.context() as patched:
        for name in os.environ.keys() - environment.keys():
            patched.delenv(name)
        for name, value in environment.items():
            patched.setenv(name, value)
        yield Place.from_environment(environment)


@contextmanager
def daemon(nix: PrivateStore) -> Iterator[Path]:
    """Run a daemon whose store has its database, and yield its socket.

    Of two connections that find none, each makes it, and one fails since the other has locked it.
    """
    nix.run("nix-store", "--init")
    with nix.daemon() as path:
        yield path


@contextmanager
def opened(
    nix: PrivateStore, way: str = "local", stall_seconds: float = STALL_SECONDS
) -> Iterator[LocalStore]:
    """Open *nix*, for "daemon" with one that runs until the block ends."""
    with ExitStack() as stack:
        place = stack.enter_context(within(nix))
        if way == "daemon":
            stack.enter_context(daemon(nix))
        yield stack.enter_context(closing(LocalStore.open(way, place, stall_seconds=stall_seconds)))


def info_of(store: LocalStore, path: str) -> PathInfo:
    """What *store* has registered about the valid *path*."""
    parsed = store.store_dir.parse(path)
    return store.closure([parsed])[parsed]


def parsed(nix: PrivateStore, *paths: str) -> set[StorePath]:
    """Store paths from their full names."""
    store_dir = Place.from_environment(nix.environment()).store_dir
    return set(map(store_dir.parse, paths))

"""The speeds of the parts that posting is made of, on the same bytes: the limit of the whole."""

import hashlib
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import zstandard

from support.opened_store import info_of, opened
from support.private_store import PrivateStore

RUNS = 3
_CHUNK = 1 << 20


def speeds(nix: PrivateStore, path: str, nar: Path) -> dict[str, float]:
    """MB a second of each part, the best of a few runs; *nar* is the NAR of *path*."""
    size = nar.stat().st_size
    parts: dict[str, Callable[[], None]] = {
        "nix-store --dump": lambda: _dump(nix, path),
        "NAR over the worker protocol": lambda: _read(nix, path),
        "SHA-256": lambda: _hash(nar),
        "zstd level 3, one thread": lambda: _compress(nar, 0),
        "zstd level 3, two threads": lambda: _compress(nar, 2),
    }
    return {name: size / 1e6 / min(_timed(act) for _ in range(RUNS)) for name, act in parts.items()}


def _dump(nix: PrivateStore, path: str) -> None:
    command = ["nix-store", "--dump", path]
    with subprocess.Popen(command, env=nix.environment(), stdout=subprocess.PIPE) as process:
        assert process.stdout
        buffer = bytearray(_CHUNK)
        while os.readv(process.stdout.fileno(), [buffer]):
            pass


def _read(nix: PrivateStore, path: str) -> None:
    with opened(nix) as store, store.nar(info_of(store, path)) as chunks:
        for _ in chunks:
            pass


def _hash(nar: Path) -> None:
    with nar.open("rb", buffering=0) as source:
        hashlib.file_digest(source, "sha256")


def _compress(nar: Path, threads: int) -> None:
    stream = zstandard.ZstdCompressor(level=3, threads=threads).compressobj()
    with nar.open("rb", buffering=0) as source:
        while chunk := source.read(_CHUNK):
            stream.compress(chunk)
        stream.flush()


def _timed(act: Callable[[], None]) -> float:
    begun = time.perf_counter()
    act()
    return time.perf_counter() - begun

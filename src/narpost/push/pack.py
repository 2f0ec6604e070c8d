"""Packing: a NAR from Nix, hashed, compressed, and hashed again.

Small paths stay in memory and are packed a batch at a time in one thread, since handing work to
a thread costs more than they do. A large one goes to a file in the spool folder, with threads
of the compressor's own.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from narpost.errors import PathCorrupt
from narpost.nix.cache_names import NAR_EXTENSIONS
from narpost.nix.hashes import Hash
from narpost.nix.path_info import PathInfo
from narpost.push.budget import Budget
from narpost.push.compression import Compression
from narpost.store.store import Store

# A path whose NAR is larger goes to a file.
IN_MEMORY_BYTES = 4 << 20
MEMORY_BYTES = 64 << 20
LARGE_AT_ONCE = 4
BATCH = 16
_LARGE_THREADS = 2


@dataclass(frozen=True, slots=True)
class Packed:
    """A compressed NAR, in memory or in a file; *file_hash* and *file_bytes* are of that form."""

    info: PathInfo
    body: bytes | Path
    file_hash: Hash
    file_bytes: int


class Packer:
    """Packs paths of *store*; large ones into *folder*.

    What is packed and not yet sent stays below MEMORY_BYTES in memory, and below LARGE_AT_ONCE
    files in the folder.
    """

    def __init__(self, store: Store, compression: Compression, folder: Path) -> None:
        self._store = store
        self._compression = compression
        self._folder = folder
        self._memory = Budget(MEMORY_BYTES)
        self._files = asyncio.Semaphore(LARGE_AT_ONCE)
        self._small_thread = ThreadPoolExecutor(1, "pack-small")
        self._large_threads = ThreadPoolExecutor(_LARGE_THREADS, "pack-large")
        self._waiting: list[tuple[PathInfo, asyncio.Future[Packed]]] = []
        self._batches: asyncio.Task[None] | None = None

    def prepare(self) -> None:
        """Make the folder, and clear away what a crash has left there."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for left_over in self._folder.iterdir():
            left_over.unlink()

    @asynccontextmanager
    async def packed(self, info: PathInfo) -> AsyncIterator[Packed]:
        """The path, packed for as long as the context lasts."""
        if info.nar_bytes <= IN_MEMORY_BYTES:
            # The NAR and its compressed form are both there for a while.
            async with self._memory.of(2 * info.nar_bytes):
                yield await self._pack_small(info)
            return
        async with self._files:
            file = self._folder / f"{info.path}.nar{NAR_EXTENSIONS[self._compression.name]}"
            loop = asyncio.get_running_loop()
            try:
                yield await loop.run_in_executor(
                    self._large_threads, pack_to_file, info, self._store, self._compression, file
                )
            finally:
                file.unlink(missing_ok=True)

    def close(self) -> None:
        """Let the threads end."""
        self._small_thread.shutdown()
        self._large_threads.shutdown()

    async def _pack_small(self, info: PathInfo) -> Packed:
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((info, future))
        if self._batches is None or self._batches.done():
            self._batches = asyncio.create_task(self._pack_batches())
        packed: Packed = await future
        return packed

    async def _pack_batches(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
            infos = [info for info, _future in batch]
            results = await loop.run_in_executor(self._small_thread, self._pack_each, infos)
            for (_info, future), result in zip(batch, results, strict=True):
                if future.done():
                    continue  # Nobody waits for it any more.
                if isinstance(result, Packed):
                    future.set_result(result)
                else:
                    future.set_exception(result)

    def _pack_each(self, infos: Sequence[PathInfo]) -> list[Packed | Exception]:
        results: list[Packed | Exception] = []
        for info in infos:
            try:
                results.append(pack_in_memory(info, self._store, self._compression))
            except Exception as error:  # Each path has its own fate; its caller raises it.
                results.append(error)
        return results


def pack_in_memory(info: PathInfo, store: Store, compression: Compression) -> Packed:
    """Pack a small path; bytes that are not those that Nix registered are `PathCorrupt`."""
    parts: list[bytes] = []
    file_hash, file_bytes = _pack(info, store, compression, 0, parts.append)
    return Packed(info, b"".join(parts), file_hash, file_bytes)


def pack_to_file(info: PathInfo, store: Store, compression: Compression, file: Path) -> Packed:
    """Pack a large path into *file*; the caller removes it, also after an error."""
    with file.open("wb") as sink:
        file_hash, file_bytes = _pack(info, store, compression, _LARGE_THREADS, _writer(sink))
    return Packed(info, file, file_hash, file_bytes)


def _pack(
    info: PathInfo,
    store: Store,
    compression: Compression,
    threads: int,
    write: Callable[[bytes], None],
) -> tuple[Hash, int]:
    nar_hash, file_hash, file_bytes = hashlib.sha256(), hashlib.sha256(), 0
    compressor = compression.start(info.nar_bytes, threads)

    def put(data: bytes) -> None:
        nonlocal file_bytes
        file_hash.update(data)
        file_bytes += len(data)
        write(data)

    with store.nar(info) as chunks:
        for chunk in chunks:
            nar_hash.update(chunk)
            put(compressor.compress(chunk))
        # Inside of the context: a connection that sent other bytes must not be used again.
        if nar_hash.digest() != info.nar_hash.digest:
            raise PathCorrupt(
                f"{info.path} is not what Nix registered: its hash is "
                f"{Hash.sha256(nar_hash.digest()).render()} and not {info.nar_hash.render()}",
                f"repair it with: nix-store --repair-path {store.store_dir.render(info.path)}",
            )
    put(compressor.flush())
    return Hash.sha256(file_hash.digest()), file_bytes


def _writer(sink: BinaryIO) -> Callable[[bytes], None]:
    def write(data: bytes) -> None:
        sink.write(data)

    return write

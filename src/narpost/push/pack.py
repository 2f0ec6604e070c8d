"""Packing: a NAR from Nix, hashed, compressed, and hashed again.

Small paths stay in memory and are packed a batch at a time in one thread, since handing work to
a thread costs more than they do. A large one goes to a file in the spool folder, with threads
of the compressor's own.
"""

import asyncio
import hashlib
import itertools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from narpost.errors import Passing, PathCorrupt, UsageError
from narpost.nix.cache_names import NAR_EXTENSIONS
from narpost.nix.hashes import Hash
from narpost.nix.path_info import PathInfo
from narpost.push.compression import Compression, Compressor
from narpost.push.shelf import Shelf
from narpost.store.refusal import refusal_in
from narpost.store.store import Store

# A path whose NAR is larger goes to a file.
IN_MEMORY_BYTES = 4 << 20
# One is packed while another is sent: two at once would take twice the memory, and gain nothing.
LARGE_AT_ONCE = 2
_LARGE_THREADS = 2
# What tells whether a NAR compresses.
SAMPLE_BYTES = 256 << 10


@dataclass(frozen=True, slots=True)
class Packed:
    """A compressed NAR, in memory or in a file; *file_hash* and *file_bytes* are of that form."""

    info: PathInfo
    body: bytes | Path
    file_hash: Hash
    file_bytes: int


class Packer:
    """Packs paths of *store*; large ones onto *shelf*. What it gives is the caller's to drop.

    In a hurry it packs with *hurried*, which has the same format as *compression*.
    """

    def __init__(
        self,
        store: Store,
        compression: Compression,
        shelf: Shelf,
        hurried: Compression | None = None,
    ) -> None:
        self.shelf = shelf
        self._store = store
        self._compression = compression
        self._hurried = hurried or compression
        self._small_thread = ThreadPoolExecutor(1, "pack-small")
        self._large_thread = ThreadPoolExecutor(1, "pack-large")

    def prepare(self) -> None:
        """Make the folder for large paths."""
        try:
            self.shelf.prepare()
        except OSError as error:
            raise UsageError(
                f"cannot write to {self.shelf.folder}: {(error.strerror or str(error)).lower()}",
                "set state in the section [queue] to a folder that the daemon may write to",
            ) from error

    async def pack_small(
        self, infos: Sequence[PathInfo], *, in_a_hurry: bool = False
    ) -> list[Packed | Exception]:
        """Pack a batch in memory; each path has its own result."""
        compressor = (self._hurried if in_a_hurry else self._compression).start()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._small_thread, pack_in_memory, infos, self._store, compressor
        )

    async def pack_large(self, info: PathInfo, *, in_a_hurry: bool = False) -> Packed:
        """Pack one path into a file, or find it packed; after an error there is none."""
        compression = self._hurried if in_a_hurry else self._compression
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(
                self._large_thread, pack_to_shelf, info, self._store, compression, self.shelf
            )
        except OSError as error:
            raise Passing(
                f"cannot write to {self.shelf.folder}: {(error.strerror or str(error)).lower()}",
                "make room there, or set state in the section [queue] to a larger disk",
            ) from error

    def close(self) -> None:
        """Let the threads end, when they come to it."""
        for thread in (self._small_thread, self._large_thread):
            thread.shutdown(wait=False, cancel_futures=True)


def pack_in_memory(
    infos: Sequence[PathInfo], store: Store, compressor: Compressor
) -> list[Packed | Exception]:
    """Pack small paths; each has its own result or error, such as `PathCorrupt`."""
    results: list[Packed | Exception] = []
    while len(results) < len(infos):
        rest = infos[len(results) :]
        nars = store.nars(rest)
        try:
            for info in rest:
                results.append(_pack_whole(info, next(nars), store, compressor))
            next(nars, None)  # To its end, which lets the store use the connection again.
        except Exception as error:  # It is this path's alone; the stream has to begin anew.
            results.append(error)
        finally:
            nars.close()
    return results


def _pack_whole(info: PathInfo, nar: bytes, store: Store, compressor: Compressor) -> Packed:
    _check(info, store, hashlib.sha256(nar).digest(), nar)
    body = compressor.whole(nar)
    return Packed(info, body, Hash.sha256(hashlib.sha256(body).digest()), len(body))


def pack_to_shelf(info: PathInfo, store: Store, compression: Compression, shelf: Shelf) -> Packed:
    """Pack a large path into a file, unless an earlier try has left it there."""
    extension = NAR_EXTENSIONS[compression.name]
    if found := shelf.find(info, extension):
        file, file_hash = found
        return Packed(info, file, file_hash, file.stat().st_size)
    partial = shelf.begin()
    try:
        packed = pack_to_file(info, store, compression, partial)
        file = shelf.finish(partial, info, packed.file_hash, extension)
    finally:
        partial.unlink(missing_ok=True)
    return replace(packed, body=file)


def pack_to_file(info: PathInfo, store: Store, compression: Compression, file: Path) -> Packed:
    """Pack a large path into *file*; the caller removes it, also after an error."""
    nar_hash, file_hash, file_bytes = hashlib.sha256(), hashlib.sha256(), 0
    compressor = compression.start(_LARGE_THREADS)
    with file.open("wb") as sink, store.nar(info) as chunks:

        def put(data: bytes) -> None:
            nonlocal file_bytes
            file_hash.update(data)
            file_bytes += sink.write(data)

        # As many bytes as this always, so that the same NAR is packed into the same bytes.
        first = b""
        while len(first) < SAMPLE_BYTES and (chunk := next(chunks, b"")):
            first += chunk
        stream = compressor.stream(info.nar_bytes, first[:SAMPLE_BYTES])
        for chunk in itertools.chain([first], chunks):
            nar_hash.update(chunk)
            put(stream.compress(chunk))
        put(stream.flush())
        _check(info, store, nar_hash.digest())
    return Packed(info, file, Hash.sha256(file_hash.digest()), file_bytes)


def _check(info: PathInfo, store: Store, digest: bytes, nar: bytes = b"") -> None:
    """Before the NAR's end is used: a connection that sent other bytes is not used again."""
    if digest != info.nar_hash.digest:
        if refused := refusal_in(nar):
            raise refused
        raise PathCorrupt(
            f"{info.path} is not what Nix registered: its hash is "
            f"{Hash.sha256(digest).render()} and not {info.nar_hash.render()}",
            f"repair it with: nix-store --repair-path {store.store_dir.render(info.path)}",
        )

"""Publishing: making paths visible in one cache, whole or not at all.

A path's NAR is sent as soon as it is packed, beside all others. Its narinfo waits until those
of its references are there, so that at every instant each narinfo has its NAR and its closure
behind it, wherever we are killed.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

from narpost.cache.binary_cache import BinaryCache
from narpost.errors import NarpostError, Passing, Permanent
from narpost.nix.cache_names import nar_key
from narpost.nix.narinfo import NarInfo
from narpost.nix.path_info import PathInfo
from narpost.nix.signing import SecretKey
from narpost.nix.store_path import StorePath
from narpost.push.compression import Compression
from narpost.push.pack import Packed, Packer
from narpost.push.plan import Plan, Step

Visible = Callable[[NarInfo], None]


class Publisher:
    """Publishes each path once, however many plans want it; calls *on_visible* after each."""

    def __init__(
        self,
        cache: BinaryCache,
        packer: Packer,
        compression: Compression,
        keys: Sequence[SecretKey],
        on_visible: Visible,
    ) -> None:
        self._cache = cache
        self._packer = packer
        self._compression = compression
        self._keys = tuple(keys)
        self._on_visible = on_visible
        self._under_way: dict[StorePath, asyncio.Task[None]] = {}
        self._begun: set[StorePath] = set()

    def start(self, plan: Plan) -> dict[StorePath, asyncio.Task[None]]:
        """Begin all steps of *plan*; each task ends when its path is visible, or raises."""
        tasks: dict[StorePath, asyncio.Task[None]] = {}
        for step in plan.steps:
            # References come first in a plan, so what a step waits for has begun.
            tasks[step.info.path] = self._begin(step, [tasks[path] for path in step.after])
        return tasks

    def stop(self) -> None:
        """Cancel what is not packed yet, and what waits for it; the rest goes on to its end."""
        for path, task in self._under_way.items():
            if path not in self._begun:
                task.cancel()

    def _begin(self, step: Step, after: Sequence[asyncio.Task[None]]) -> asyncio.Task[None]:
        path = step.info.path
        task = self._under_way.get(path)
        if task is None:
            task = self._under_way[path] = asyncio.create_task(self._publish(step.info, after))
            task.add_done_callback(lambda done: self._end(path, done))
        return task

    def _end(self, path: StorePath, task: asyncio.Task[None]) -> None:
        del self._under_way[path]
        self._begun.discard(path)
        if not task.cancelled():
            task.exception()  # Whoever waits for it sees it too; nobody may be left to.

    async def _publish(self, info: PathInfo, after: Sequence[asyncio.Task[None]]) -> None:
        async with self._packer.packed(info) as packed:
            self._begun.add(info.path)
            narinfo = self._describe(packed)
            await self._cache.put_nar(narinfo.url, packed.body, packed.file_bytes)
        await _all_visible(info.path, after)
        # Last, since readers take a narinfo as a promise that all else is there.
        await self._cache.put_narinfo(narinfo)
        self._on_visible(narinfo)

    def _describe(self, packed: Packed) -> NarInfo:
        compression = self._compression.name
        return NarInfo(
            info=self._signed(packed.info),
            url=nar_key(packed.file_hash, compression),
            compression=compression,
            file_hash=packed.file_hash,
            file_bytes=packed.file_bytes,
        )

    def _signed(self, info: PathInfo) -> PathInfo:
        fingerprint = info.fingerprint(self._cache.info.store_dir)
        ours = {key.sign(fingerprint) for key in self._keys}
        # Nix keeps signatures in a sorted set.
        return replace(info, signatures=tuple(sorted(ours.union(info.signatures))))


async def _all_visible(path: StorePath, after: Sequence[asyncio.Task[None]]) -> None:
    for task in after:
        try:
            await asyncio.shield(task)
        except NarpostError as error:
            kind = Permanent if isinstance(error, Permanent) else Passing
            raise kind(
                f"a reference of {path} is not there: {error.message}", error.hint
            ) from error

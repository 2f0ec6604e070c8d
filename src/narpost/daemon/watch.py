"""Waiting for the queue folder to change, without looking at it again and again."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from asyncinotify import Inotify, Mask

# One build makes several links, and many builds end together: one look serves them all.
GATHER_SECONDS = 0.02
# A look without a cause, should the kernel have told us nothing.
LONGEST_SECONDS = 300.0

_GONE = Mask.DELETE_SELF | Mask.MOVE_SELF
_CHANGES = Mask.CREATE | Mask.MOVED_TO | Mask.DELETE | Mask.MOVED_FROM


async def changes(folder: Path) -> AsyncIterator[None]:
    """Yields at once, and then whenever links come or go; ends when *folder* itself is gone."""
    with Inotify(sync_timeout=0) as inotify:
        inotify.add_watch(folder, _CHANGES | _GONE)
        is_there = True
        while is_there:
            yield
            # Not wait_for: before Python 3.12 it can swallow a cancellation.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LONGEST_SECONDS):
                    is_there = not (await inotify.get()).mask & _GONE
            await asyncio.sleep(GATHER_SECONDS)
            while event := inotify.sync_get():
                is_there = is_there and not event.mask & _GONE

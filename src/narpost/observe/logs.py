"""The log: one plain line an event, for a terminal or the journal."""

from collections.abc import Callable

from narpost.events import (
    CacheDown,
    CacheUp,
    Deep,
    Dropped,
    Emit,
    Event,
    Ignored,
    Posted,
    PutAside,
    Retrying,
    Troubled,
)
from narpost.observe.words import plain, size


def log_to(write: Callable[[str], None]) -> Emit:
    """A listener that writes a line for what a person would want to know."""

    def listen(event: Event) -> None:
        line = describe(event)
        if line:
            write(line)

    return listen


def describe(event: Event) -> str:
    """The line for *event*; empty for one that goes without saying."""
    return plain(_line(event))


def _line(event: Event) -> str:
    match event:
        case CacheDown(cache, reason, seconds):
            line = f"{cache} is down: {reason}; asked again in {seconds:.0f} s"
        case CacheUp(cache):
            line = f"{cache} is up again"
        case Ignored(entry, reason):
            line = f"ignored in the queue folder: {entry}: {reason}"
        case Troubled(doing, reason):
            line = f"cannot {doing}: {reason}"
        case Deep(depth):
            line = f"{depth} entries are queued: see why with narpost status"
        case _:
            line = _path_line(event)
    return line


def _path_line(event: Event) -> str:
    match event:
        case Posted(cache, path, nar_bytes, file_bytes):
            return f"posted {path} to {cache} ({size(nar_bytes)}, {size(file_bytes)} compressed)"
        case Retrying(cache, path, reason, seconds):
            return f"not posted yet: {path} to {cache}: {reason}; next try in {seconds:.0f} s"
        case PutAside(cache, path, reason):
            return f"set aside: {path} for {cache}: {reason}"
        case Dropped(path):
            return f"dropped: {path}, which was set aside long ago"
        case _:
            return ""

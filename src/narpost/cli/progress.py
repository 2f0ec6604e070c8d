"""Progress: a bar on a terminal, and nothing but the end where there is none."""

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from narpost.events import Event, Planned, Posted
from narpost.observe import waiting
from narpost.observe.words import size

if TYPE_CHECKING:
    from rich.progress import Progress


class _Shown:
    """A bar that lasts as long as its context, on stderr; none where that is no terminal."""

    def __init__(self, total: int, *, is_bytes: bool) -> None:
        # Drawing takes a while to import, so only those who see it wait for it.
        self._bar = _bar(is_bytes) if sys.stderr.isatty() else None
        self._task = self._bar.add_task("posting", total=total, last="") if self._bar else None

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar:
            self._bar.stop()

    def _move(self, **change: Any) -> None:  # as rich takes them
        if self._bar and self._task is not None:
            self._bar.update(self._task, **change)


class WaitProgress(_Shown):
    """How many of *total* awaited paths are posted."""

    def __init__(self, total: int) -> None:
        super().__init__(total, is_bytes=False)

    def update(self, progress: waiting.Progress) -> None:
        """Show what a look has found."""
        trouble = next(iter(progress.troubles.values()), "")
        self._move(completed=len(progress.posted), last=trouble.partition("\n")[0])


class PostProgress(_Shown):
    """Bytes of NARs that this process posts: a listener for its events."""

    def __init__(self) -> None:
        super().__init__(0, is_bytes=True)
        self._planned_bytes = 0
        self.paths = 0
        self.nar_bytes = 0
        self.file_bytes = 0

    def listen(self, event: Event) -> None:
        """Move the bar."""
        match event:
            case Planned(_, _, nar_bytes):
                self._planned_bytes += nar_bytes
                self._move(total=self._planned_bytes)
            case Posted(_, path, nar_bytes, file_bytes):
                self.paths += 1
                self.nar_bytes += nar_bytes
                self.file_bytes += file_bytes
                self._move(advance=nar_bytes, last=path)
            case _:
                return

    def summary(self) -> str:
        """One line on what was posted."""
        if not self.paths:
            return "nothing to post: all of it is in the cache"
        word = "path" if self.paths == 1 else "paths"
        sizes = f"{size(self.nar_bytes)}, {size(self.file_bytes)} compressed"
        return f"posted {self.paths} {word}: {sizes}"


def _bar(is_bytes: bool) -> "Progress":
    from rich import progress
    from rich.console import Console

    amounts = (
        (progress.DownloadColumn(binary_units=True), progress.TransferSpeedColumn())
        if is_bytes
        else (progress.MofNCompleteColumn(),)
    )
    return progress.Progress(
        progress.TextColumn("posting"),
        progress.BarColumn(),
        *amounts,
        progress.TimeElapsedColumn(),
        progress.TextColumn("{task.fields[last]}"),
        console=Console(stderr=True),
    )

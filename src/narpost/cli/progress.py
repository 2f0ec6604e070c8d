"""Progress: a bar on a terminal, and nothing but the end where there is none."""

import sys
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TransferSpeedColumn,
)

from narpost.events import Event, Planned, Posted
from narpost.observe import waiting
from narpost.observe.words import size


class _Shown:
    """A bar that lasts as long as its context, on stderr."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.progress.stop()


class WaitProgress(_Shown):
    """How many of *total* awaited paths are posted."""

    def __init__(self, total: int) -> None:
        super().__init__(
            Progress(
                TextColumn("posting"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.fields[trouble]}"),
                console=Console(stderr=True),
                disable=not sys.stderr.isatty(),
            )
        )
        self._task = self.progress.add_task("posting", total=total, trouble="")

    def update(self, progress: waiting.Progress) -> None:
        """Show what a look has found."""
        trouble = next(iter(progress.troubles.values()), "")
        self.progress.update(
            self._task, completed=len(progress.posted), trouble=trouble.partition("\n")[0]
        )


class PostProgress(_Shown):
    """Bytes of NARs that this process posts: a listener for its events."""

    def __init__(self) -> None:
        super().__init__(
            Progress(
                TextColumn("posting"),
                BarColumn(),
                DownloadColumn(binary_units=True),
                TransferSpeedColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.fields[path]}"),
                console=Console(stderr=True),
                disable=not sys.stderr.isatty(),
            )
        )
        self._task = self.progress.add_task("posting", total=0, path="")
        self._planned_bytes = 0
        self.paths = 0
        self.nar_bytes = 0
        self.file_bytes = 0

    def listen(self, event: Event) -> None:
        """Move the bar."""
        match event:
            case Planned(_, _, nar_bytes):
                self._planned_bytes += nar_bytes
                self.progress.update(self._task, total=self._planned_bytes)
            case Posted(_, path, nar_bytes, file_bytes):
                self.paths += 1
                self.nar_bytes += nar_bytes
                self.file_bytes += file_bytes
                self.progress.update(self._task, advance=nar_bytes, path=path)
            case _:
                return

    def summary(self) -> str:
        """One line on what was posted."""
        if not self.paths:
            return "nothing to post: all of it is in the cache"
        word = "path" if self.paths == 1 else "paths"
        sizes = f"{size(self.nar_bytes)}, {size(self.file_bytes)} compressed"
        return f"posted {self.paths} {word}: {sizes}"

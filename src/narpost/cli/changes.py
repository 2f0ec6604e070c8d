"""Changes to files: shown as a diff, then made whole."""

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from narpost.errors import UsageError


@dataclass(frozen=True, slots=True)
class Change:
    """*file* is to say *new*; *shown* is its name without the root it lies below."""

    file: Path
    shown: Path
    old: str
    new: str
    mode: int

    @classmethod
    def of(
        cls, root: Path, shown: Path, new: str | Callable[[str], str], mode: int | None = None
    ) -> Self:
        """A change of *shown* below *root* to *new*, or to what *new* makes of what is there.

        A link stays one, and without a *mode* a file keeps its own.
        """
        file = (root / shown.relative_to("/")).resolve()
        try:
            old = file.read_text() if file.exists() else ""
            if mode is None:
                mode = file.stat().st_mode & 0o777 if file.exists() else 0o644
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"cannot read {file}: {error}") from error
        return cls(file, shown, old, new(old) if callable(new) else new, mode)

    @property
    def is_made(self) -> bool:
        """Whether the file already says so."""
        return self.old == self.new and self.file.stat().st_mode & 0o777 == self.mode


def difference(change: Change) -> str:
    """The change as a unified diff."""
    lines = difflib.unified_diff(
        change.old.splitlines(),
        change.new.splitlines(),
        str(change.shown),
        str(change.shown),
        "",
        "",
        lineterm="",
    )
    return "\n".join(lines)


def apply(changes: Sequence[Change]) -> None:
    """Make *changes*, each file whole or not at all."""
    for change in changes:
        beside = change.file.with_name(f".{change.file.name}.narpost")
        try:
            change.file.parent.mkdir(parents=True, exist_ok=True)
            beside.write_text(change.new)
            beside.chmod(change.mode)
            beside.replace(change.file)
        except OSError as error:
            beside.unlink(missing_ok=True)
            raise UsageError(
                f"cannot write {change.file}: {error.strerror}", "run it as root: sudo narpost …"
            ) from error

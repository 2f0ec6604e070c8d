"""What commands say on stderr when something is wrong, and the exit codes that go with it."""

from collections.abc import Mapping

import click

from narpost.errors import (
    CacheRefused,
    CacheUnreachable,
    NarpostError,
    StoreUnreachable,
    UsageError,
)
from narpost.nix.store_path import StorePath
from narpost.observe.words import plain

SOME_FAILED, USAGE, UNREACHABLE, INTERRUPTED = 1, 2, 3, 130


def say_error(error: NarpostError) -> None:
    """Two lines on stderr: what failed, and what to do."""
    click.echo(f"error: {plain(error.message)}", err=True)
    if error.hint:
        click.echo(f"hint: {plain(error.hint)}", err=True)


def say_warning(text: str) -> None:
    """One line on stderr."""
    click.echo(f"warning: {plain(text)}", err=True)


def exit_code(error: NarpostError) -> int:
    """The exit code for a command that *error* ended."""
    if isinstance(error, UsageError):
        return USAGE
    if isinstance(error, CacheUnreachable | CacheRefused | StoreUnreachable):
        return UNREACHABLE
    return SOME_FAILED


def name_failed(failed: Mapping[StorePath, str]) -> None:
    """A line on stderr for each of *failed*, with its reason."""
    for path, reason in sorted(failed.items()):
        click.echo(f"not posted: {path}: {plain(reason) or 'not tried yet'}", err=True)

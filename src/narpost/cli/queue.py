"""`narpost queue`: look into the queue, and mend it."""

import json
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import click

from narpost import wiring
from narpost.cli.options import config_option, load_config, this_place
from narpost.cli.paths import resolve
from narpost.cli.say import say_warning
from narpost.config import Config
from narpost.errors import UsageError
from narpost.nix.store_path import StorePath
from narpost.observe.entries import QueuedEntry, entries
from narpost.observe.words import columns, duration, plain
from narpost.queue.ledger import Ledger
from narpost.queue.lock import DaemonLock
from narpost.queue.spool import Spool


@click.group()
def command() -> None:
    """Look into the queue, and mend it."""


@command.command("list")
@config_option
@click.option("--json", "as_json", is_flag=True, help="For programs: a JSON list.")
def list_entries(config_file: Path, as_json: bool) -> None:
    """Show what is queued, oldest first, and why it still is.

    \b
    Example:
      narpost queue list --json | jq -r '.[] | select(.state == "set aside") | .path'
    """
    config, place = load_config(config_file), this_place()
    names = [cache.name for cache in config.caches]
    with Ledger(config.state, is_writer=False) as ledger:
        found = entries(wiring.open_spool(config, place), ledger, names, time.time())
    if as_json:
        click.echo(json.dumps([asdict(entry) for entry in found], indent=2))
    elif found:
        click.echo(columns([("path", "cache", "state", "tries", "queued for"), *map(_row, found)]))
        for entry in found:
            if entry.reason:
                click.echo(f"\n{entry.path}, {entry.cache}:\n  {plain(entry.reason)}")
    else:
        click.echo("nothing is queued")


@command.command()
@config_option
@click.argument("paths", nargs=-1, metavar="[PATH]...")
def retry(config_file: Path, paths: tuple[str, ...]) -> None:
    """Try PATHs again now, or all that failed.

    What was set aside is tried again too. A daemon that runs begins at once.

    \b
    Example:
      narpost queue retry
    """
    config, spool, wanted = _open(config_file, paths)
    chosen = wanted or _failed(config, spool)
    is_running = DaemonLock(config.directory).is_held()
    if not is_running:
        with Ledger(config.state) as ledger:
            for path in chosen:
                ledger.forget(path)
    for path in chosen:
        spool.renew(path)
    click.echo(f"{_paths(chosen)} to be tried again")
    if chosen and not is_running:
        say_warning("no daemon works on this queue; start it with: systemctl start narpost")


@command.command()
@config_option
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
def drop(config_file: Path, paths: tuple[str, ...]) -> None:
    """Let go of PATHs: they are not posted, and may be collected as garbage.

    \b
    Example:
      narpost queue drop /nix/store/…-broken
    """
    _config, spool, wanted = _open(config_file, paths)
    for path in wanted:
        spool.remove(path)
    click.echo(f"{_paths(wanted)} dropped")


@command.command("catch-up")
@config_option
def catch_up(config_file: Path) -> None:
    """Queue what was built here while the hook was not set.

    Compares what this machine has built with what was known at the last such look; the first
    time that is all. What a cache has already is not posted again.

    \b
    Example:
      narpost queue catch-up
    """
    config, place = load_config(config_file), this_place()
    missed = wiring.catch_up(config, place)
    click.echo(f"{_paths(missed)} queued")


def _open(config_file: Path, texts: Iterable[str]) -> tuple[Config, Spool, list[StorePath]]:
    """The queue, and the paths that a person named, which must be in it."""
    config, place = load_config(config_file), this_place()
    spool = wiring.open_spool(config, place)
    wanted = sorted({resolve(text, place.store_dir) for text in texts})
    for path in wanted:
        if not spool.holds(path):
            raise UsageError(f"{path} is not queued", "see what is with: narpost queue list")
    return config, spool, wanted


def _failed(config: Config, spool: Spool) -> list[StorePath]:
    with Ledger(config.state, is_writer=False) as ledger:
        names = {path for (path, _cache), each in ledger.standings().items() if each.reason}
    return [entry.path for entry in spool.queued() if entry.path.base_name in names]


def _row(entry: QueuedEntry) -> tuple[str, ...]:
    age = duration(entry.queued_seconds)
    return (entry.path, entry.cache, entry.state, str(entry.tries), age)


def _paths(paths: list[StorePath]) -> str:
    return f"{len(paths)} path{'' if len(paths) == 1 else 's'}"

"""`narpost status`: the one picture of the queue and its caches."""

import dataclasses
import json
import time
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from narpost import wiring
from narpost.cli.options import config_option, load_config, this_place
from narpost.observe.snapshot import Snapshot, take
from narpost.observe.words import duration, plain, size
from narpost.queue.ledger import Ledger
from narpost.queue.lock import DaemonLock

FAILURES_SHOWN = 10


@click.command()
@config_option
@click.option("--json", "as_json", is_flag=True, help="For programs: one JSON object.")
def command(config_file: Path, as_json: bool) -> None:
    """Show the queue and its caches.

    \b
    Example:
      narpost status --json | jq .depth
    """
    config, place = load_config(config_file), this_place()
    with Ledger(config.state, is_writer=False) as ledger:
        snapshot = take(
            wiring.open_spool(config, place),
            ledger,
            DaemonLock(config.directory),
            [(cache.name, str(cache.url)) for cache in config.caches],
            time.time(),
        )
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(snapshot), indent=2))
    else:
        show(snapshot, Console())


def show(snapshot: Snapshot, console: Console) -> None:
    """Draw the picture for a person."""
    running = "is running" if snapshot.is_daemon_running else "is not running"
    console.print(f"{_queue_line(snapshot)}; the daemon {running}")
    table = Table("cache", "waiting", "retrying", "set aside", "posted today", "sent today")
    for cache in snapshot.caches:
        table.add_row(
            f"{cache.name} ({cache.url})",
            str(cache.waiting),
            str(cache.retrying),
            str(cache.set_aside),
            f"{cache.posted_today} paths, {size(cache.nar_bytes_today)}",
            size(cache.file_bytes_today),
        )
    console.print(table)
    for failure in snapshot.failures[:FAILURES_SHOWN]:
        console.print(
            f"{failure.state} after {failure.tries} tries, {failure.cache}: {failure.path}: "
            f"{plain(failure.reason)}",
            markup=False,
            highlight=False,
        )
    more = len(snapshot.failures) - FAILURES_SHOWN
    if more > 0:
        console.print(f"and {more} more: narpost status --json")


def _queue_line(snapshot: Snapshot) -> str:
    if snapshot.oldest_seconds is None:
        return "nothing is queued"
    return f"{snapshot.depth} queued, the oldest for {duration(snapshot.oldest_seconds)}"

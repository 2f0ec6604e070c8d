"""`narpost status`: the one picture of the queue and its caches."""

import dataclasses
import time
from pathlib import Path

import click

from narpost import wiring
from narpost.cli.options import config_option, load_config, this_place
from narpost.observe.snapshot import CachePicture, Snapshot, take
from narpost.observe.words import columns, duration, plain, size
from narpost.queue.ledger import Ledger
from narpost.queue.lock import DaemonLock

FAILURES_SHOWN = 10

_HEAD = tuple(
    "cache, health, waiting, retrying, set aside, posted today, sent today, url".split(", ")
)


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
        import json

        click.echo(json.dumps(dataclasses.asdict(snapshot), indent=2))
    else:
        show(snapshot)


def show(snapshot: Snapshot) -> None:
    """Write the picture for a person."""
    running = "is running" if snapshot.is_daemon_running else "is not running"
    click.echo(f"{_queue_line(snapshot)}; the daemon {running}\n")
    click.echo(columns([_HEAD, *map(_row, snapshot.caches)]))
    for cache in snapshot.caches:
        if cache.health_seconds is not None:
            since = duration(cache.health_seconds)
            click.echo(f"\n{cache.name}: {cache.health} for {since}\n  {plain(cache.trouble)}")
    for failure in snapshot.failures[:FAILURES_SHOWN]:
        click.echo(
            f"\n{failure.state} after {failure.tries} tries, {failure.cache}: {failure.path}\n"
            f"  {plain(failure.reason)}"
        )
    more = len(snapshot.failures) - FAILURES_SHOWN
    if more > 0:
        click.echo(f"\nand {more} more: narpost status --json")


def _row(cache: CachePicture) -> tuple[str, ...]:
    return (
        cache.name,
        cache.health,
        str(cache.waiting),
        str(cache.retrying),
        str(cache.set_aside),
        f"{cache.posted_today} paths, {size(cache.nar_bytes_today)}",
        size(cache.file_bytes_today),
        cache.url,
    )


def _queue_line(snapshot: Snapshot) -> str:
    if snapshot.oldest_seconds is None:
        return "nothing is queued"
    return f"{snapshot.depth} queued, the oldest for {duration(snapshot.oldest_seconds)}"

"""`narpost daemon`: posts what is queued, for ever or until nothing is left to do."""

import asyncio
import signal
from pathlib import Path

import click

from narpost import wiring
from narpost.cli.options import config_option, load_config, this_place
from narpost.cli.report import report
from narpost.cli.say import say_warning
from narpost.config import Config
from narpost.daemon.daemon import Daemon, Outcome
from narpost.errors import Passing
from narpost.events import Bus
from narpost.observe.logs import log_to
from narpost.store.place import Place


@click.command()
@config_option
@click.option("--drain", is_flag=True, help="Exit when nothing is left to do.")
def command(config_file: Path, drain: bool) -> int:
    """Post what is queued.

    Runs until it is told to stop (SIGTERM or Ctrl-C), and then lets the work in hand finish.

    \b
    Example:
      narpost daemon --drain
    """
    config, place, bus = load_config(config_file), this_place(), Bus()
    bus.listen(log_to(lambda line: click.echo(line, err=True)))
    for warning in wiring.key_warnings(config):
        say_warning(warning)
    if config.catch_up:
        _catch_up(config, place)
    store = wiring.open_store(config, place)
    try:
        daemon = wiring.build_daemon(config, place, bus, store)
        outcome = asyncio.run(_work(daemon, drain))
    finally:
        store.close()
    return report(outcome) if outcome else 0


def _catch_up(config: Config, place: Place) -> None:
    try:
        missed = wiring.catch_up(config, place)
    except Passing as error:
        say_warning(f"cannot catch up: {error.message}")
    else:
        click.echo(f"caught up: {len(missed)} paths that were built before", err=True)


async def _work(daemon: Daemon, drain: bool) -> Outcome | None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if drain:
        return await daemon.drain(stop)
    await daemon.run(stop)
    return None

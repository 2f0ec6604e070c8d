"""`narpost wait`: returns when paths are posted."""

import contextlib
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import click

from narpost import wiring
from narpost.cli.options import config_option, load_config, this_place
from narpost.cli.paths import resolve
from narpost.cli.progress import WaitProgress
from narpost.cli.say import SOME_FAILED, name_failed, say_warning
from narpost.config import Config
from narpost.nix.store_path import StorePath
from narpost.observe.waiting import Progress, Watch
from narpost.queue.ledger import Ledger
from narpost.queue.lock import DaemonLock
from narpost.queue.spool import Spool
from narpost.store.place import Place

_TIME = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h|d|)")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


class Duration(click.ParamType[float]):
    """`30`, `30s`, `5m`, `2h` or `1d`, as seconds."""

    name = "time"

    def convert(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Seconds."""
        match = _TIME.fullmatch(value)
        if match is None:
            self.fail(f"{value!r} is not a time such as 30s, 5m or 2h", param, ctx)
        return float(match[1]) * _SECONDS[match[2]]


@click.command()
@config_option
@click.option("--timeout", type=Duration(), metavar="TIME", help="Give up after this, e.g. 10m.")
@click.argument("paths", nargs=-1, metavar="[PATH]...")
def command(config_file: Path, timeout: float | None, paths: tuple[str, ...]) -> int:
    """Wait until PATHs are posted, or all that is queued now.

    Exits with 1, and a line for each, when some are not.

    \b
    Example:
      narpost wait --timeout 10m ./result
    """
    config, place = load_config(config_file), this_place()
    spool = wiring.open_spool(config, place)
    wanted = _wanted(paths, config, place) if paths else _queued(spool)
    if wanted and not DaemonLock(config.directory).is_held():
        say_warning("no daemon works on this queue; start it with: systemctl start narpost")
    progress = watch(config, spool, wanted, timeout)
    return report_progress(progress)


def watch(
    config: Config,
    spool: Spool,
    paths: Iterable[StorePath],
    timeout: float | None = None,
    is_hopeful: Callable[[], bool] = lambda: True,
) -> Progress:
    """Show progress until all *paths* are posted or failed, or there is no more hope."""
    wanted = list(paths)
    watched = Watch(spool, lambda: Ledger(config.state, is_writer=False), wanted)
    with WaitProgress(len(wanted)) as shown:
        return watched.until_settled(timeout, shown.update, is_hopeful)


def report_progress(progress: Progress) -> int:
    """Name what was not posted; gives the exit code."""
    failed = _not_posted(progress)
    name_failed(failed)
    return SOME_FAILED if failed else 0


def _wanted(texts: Iterable[str], config: Config, place: Place) -> set[StorePath]:
    """The paths that a person named; a derivation stands for itself and its outputs."""
    wanted = {resolve(text, place.store_dir) for text in texts}
    derivations = [path for path in wanted if path.is_derivation]
    if derivations:
        with contextlib.closing(wiring.open_store(config, place)) as store:
            for derivation in derivations:
                wanted |= set(store.outputs(derivation))
    return {path for path in wanted if not path.is_derivation}


def _not_posted(progress: Progress) -> dict[StorePath, str]:
    late = {
        path: "time is up; " + progress.troubles.get(path, "it still waits")
        for path in progress.waiting
    }
    return progress.failed | late


def _queued(spool: Spool) -> set[StorePath]:
    return {entry.path for entry in spool.queued()}

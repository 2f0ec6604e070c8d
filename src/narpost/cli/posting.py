"""Posting paths: by the daemon that works on their queue, or by this process."""

import asyncio
import contextlib
import dataclasses
import os
import shutil
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path

import click

from narpost import wiring
from narpost.cli.options import load_config, this_place
from narpost.cli.paths import resolve
from narpost.cli.progress import PostProgress
from narpost.cli.report import report
from narpost.cli.say import say_warning
from narpost.cli.wait import report_progress, watch
from narpost.config import CacheConfig, Config, default, key_files
from narpost.daemon.daemon import Outcome
from narpost.errors import UsageError
from narpost.events import Bus
from narpost.nix.store_path import StorePath
from narpost.nix.store_url import StoreUrl
from narpost.queue.lock import DaemonLock, LockTaken
from narpost.store.local import LocalStore
from narpost.store.place import Place
from narpost.store.store import Store

_PRIVATE = "to-"


def post(texts: Iterable[str], config_file: Path, url: str | None, unsigned: bool) -> int:
    """Queue the paths that *texts* name, and see them posted; gives the exit code."""
    place = this_place()
    wanted = [resolve(text, place.store_dir) for text in texts]
    if not url:
        return _push(load_config(config_file), place, wanted)
    with _private_queue(_with_cache(config_file, place, url, unsigned)) as config:
        return _push(config, place, wanted)


def _push(config: Config, place: Place, wanted: list[StorePath]) -> int:
    for warning in wiring.key_warnings(config):
        say_warning(warning)
    store = wiring.open_store(config, place)
    try:
        paths = _outputs(wanted, store)
        spool = wiring.open_spool(config, place)
        spool.prepare(place.gcroots)
        lock = DaemonLock(config.directory)
        while True:
            if lock.is_held():
                for path in paths:
                    spool.renew(path)
                progress = watch(config, spool, paths, is_hopeful=lock.is_held)
                if not progress.waiting:
                    return report_progress(progress)
            # Nobody posts, or whoever did has ended: then we do.
            with contextlib.suppress(LockTaken):
                return _post_ourselves(config, place, store, paths)
    finally:
        store.close()


def _post_ourselves(config: Config, place: Place, store: LocalStore, paths: list[StorePath]) -> int:
    bus = Bus()
    daemon = wiring.build_daemon(config, place, bus, store)
    # Queued only now, when keys, folders and cache were found to be in order.
    wiring.open_spool(config, place).add(paths)

    async def drain() -> Outcome:
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        return await daemon.drain(stop, frozenset(paths))

    with PostProgress() as shown:
        bus.listen(shown.listen)
        outcome = asyncio.run(drain())
    if not outcome.left:
        click.echo(shown.summary())
    return report(outcome)


def _outputs(wanted: list[StorePath], store: Store) -> list[StorePath]:
    """*wanted*, with the outputs of derivations in their place; all valid."""
    paths = set(wanted)
    for path in wanted:
        if path.is_derivation:
            paths = paths - {path} | set(store.outputs(path))
    missing = paths - store.valid_paths(paths)
    if missing:
        raise UsageError(
            f"{store.store_dir.render(min(missing))} is not in the store",
            "build it first, or check the name",
        )
    return sorted(paths)


def _with_cache(config_file: Path, place: Place, url: str, unsigned: bool) -> Config:
    """The configuration with *url* as its only cache; keys are those of the same cache there."""
    target = StoreUrl.parse(url)
    config = load_config(config_file) if config_file.exists() else default(place)
    configured = [cache for cache in config.caches if str(cache.url) == str(target)]
    files = key_files(target) or (configured[0].secret_key_files if configured else ())
    if not files and not unsigned:
        raise UsageError(
            f"there is no secret key for {target}, so nothing could be signed",
            "add ?secret-key=/path/to/key to the URL, or give --unsigned",
        )
    cache = CacheConfig(
        name="to",
        url=target,
        secret_key_files=() if unsigned else files,
        upstream_keys=configured[0].upstream_keys if configured else (),
        sign=not unsigned,
    )
    return dataclasses.replace(config, caches=(cache,))


@contextlib.contextmanager
def _private_queue(config: Config) -> Iterator[Config]:
    """*config* with a queue for this command alone, beside the configured one."""
    _clear_abandoned(config)
    name = f"{_PRIVATE}{os.getpid()}"
    private = dataclasses.replace(
        config, directory=config.directory / name, state=config.state / name
    )
    try:
        yield private
    finally:
        shutil.rmtree(private.directory, ignore_errors=True)
        shutil.rmtree(private.state, ignore_errors=True)


def _clear_abandoned(config: Config) -> None:
    """Let go of what a command that was killed had queued for itself."""
    for parent in (config.directory, config.state):
        for folder in parent.glob(f"{_PRIVATE}*"):
            process = folder.name.removeprefix(_PRIVATE)
            if not Path("/proc", process).exists():
                shutil.rmtree(folder, ignore_errors=True)

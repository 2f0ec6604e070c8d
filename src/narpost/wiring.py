"""Puts the parts together: the only file that knows every room.

What is heavy is imported where it is put together, so that commands that only look start at once.
"""

import contextlib
import random
import resource
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from narpost.config import CacheConfig, Config
from narpost.errors import UsageError
from narpost.nix.signing import SecretKey
from narpost.nix.store_path import StorePath
from narpost.nix.store_url import StoreUrl
from narpost.queue.spool import Spool
from narpost.store.place import Place

if TYPE_CHECKING:
    from narpost.cache.binary_cache import BinaryCache
    from narpost.cache.bucket import Bucket
    from narpost.cache.pace import Pace
    from narpost.daemon.daemon import Daemon
    from narpost.events import Bus
    from narpost.push.worker import Worker
    from narpost.queue.queue import Queue
    from narpost.store.local import LocalStore

_OTHERS = 0o077
PACKED = "packed"
OPEN_FILES = 4096


def load_keys(config: CacheConfig) -> tuple[SecretKey, ...]:
    """Read the cache's key files; a cache without any must say that it wants none."""
    if config.sign and not config.secret_key_files:
        raise UsageError(
            f"the cache {config.name!r} has no secret key, so nothing could be signed",
            'add secret-key-files = ["…"], made by narpost keygen; '
            "or say sign = false to post unsigned",
        )
    if not config.sign and config.secret_key_files:
        raise UsageError(
            f"the cache {config.name!r} has secret keys and says sign = false",
            "take out one of the two",
        )
    return tuple(map(load_key, config.secret_key_files))


def key_warnings(config: Config) -> list[str]:
    """What to say about key files that others can read."""
    files = {file for cache in config.caches for file in cache.secret_key_files}
    return [
        f"the secret key {file} can be read by other users; mend it with: chmod 600 {file}"
        for file in sorted(files)
        if file.is_file() and file.stat().st_mode & _OTHERS
    ]


def open_store(config: Config, place: Place) -> "LocalStore":
    """This machine's store."""
    from narpost.store.local import LocalStore

    return LocalStore.open(config.store, place)


def open_spool(config: Config, place: Place) -> Spool:
    """The queue folder, as it is."""
    return Spool(config.directory, place.store_dir)


def open_cache(config: CacheConfig, place: Place) -> "BinaryCache":
    """The cache that *config* names."""
    from narpost.cache.binary_cache import BinaryCache
    from narpost.cache.pace import Pace
    from narpost.nix.cache_info import CacheInfo

    info = CacheInfo.from_parameters(place.store_dir, config.url.parameters)
    pace = Pace(config.requests_per_second, config.bytes_per_second, clock=time.monotonic)
    return BinaryCache(open_bucket(config.url, pace), info)


def open_bucket(url: StoreUrl, pace: "Pace | None" = None) -> "Bucket":
    """The bucket or folder that *url* names; a folder has no pace."""
    if url.scheme == "file":
        from narpost.cache.folder import open_folder

        return open_folder(url)
    from narpost.cache.object_store import open_s3

    return open_s3(url, pace)


def check_parameters(url: StoreUrl, place: Place) -> None:
    """See that the cache's parameters have values that they can have."""
    from narpost.nix.cache_info import CacheInfo
    from narpost.push.compression import Compression

    Compression.from_parameters(url.parameters)
    CacheInfo.from_parameters(place.store_dir, url.parameters)


def catch_up(config: Config, place: Place) -> list[StorePath]:
    """Queue what was built and is not known; returns that."""
    from narpost.daemon.catch_up import catch_up
    from narpost.queue.ledger import Ledger

    spool = open_spool(config, place)
    spool.prepare(place.gcroots)
    with contextlib.closing(open_store(config, place)) as store, Ledger(config.state) as ledger:
        return catch_up(store, spool, ledger)


def build_daemon(config: Config, place: Place, bus: "Bus", store: "LocalStore") -> "Daemon":
    """A daemon over the configured queue and caches; keys and folders are checked here."""
    from narpost.daemon.daemon import Daemon
    from narpost.daemon.intake import Intake, Policy
    from narpost.push.shelf import clear_others
    from narpost.queue.ledger import Ledger
    from narpost.queue.lock import DaemonLock
    from narpost.queue.queue import Queue

    raise_open_files()
    keys = [load_keys(cache) for cache in config.caches]
    spool = open_spool(config, place)
    spool.prepare(place.gcroots)
    ledger = Ledger(config.state)
    ledger.prune(time.time())
    names = [cache.name for cache in config.caches]
    queue = Queue(spool, ledger, names, clock=time.time, emit=bus)
    workers = [
        _build_worker(cache, secret, queue, store, config, place, bus)
        for cache, secret in zip(config.caches, keys, strict=True)
    ]
    policy = Policy(config.warn_depth, config.drop_set_aside_after_days)
    lock = DaemonLock(config.directory)
    intake = Intake(queue, store, bus, policy)
    return Daemon(
        queue, intake, workers, lock, bus, lambda: clear_others(config.state / PACKED, names)
    )


def _build_worker(
    config: CacheConfig,
    keys: Sequence[SecretKey],
    queue: "Queue",
    store: "LocalStore",
    whole: Config,
    place: Place,
    bus: "Bus",
) -> "Worker":
    from narpost.backoff import Backoff
    from narpost.push.cache_watch import Surroundings
    from narpost.push.compression import Compression
    from narpost.push.pack import Packer
    from narpost.push.publish import Publisher
    from narpost.push.seen import Seen
    from narpost.push.shelf import Shelf
    from narpost.push.worker import Worker

    compression = Compression.from_parameters(config.url.parameters)
    hurried = None if config.backlog_level is None else compression.at(str(config.backlog_level))
    # One half for what is on its way, one for what waits for another try.
    room_bytes = whole.packed_bytes // 2
    shelf = Shelf(whole.state / PACKED / config.name, room_bytes)
    packer = Packer(store, compression, shelf, hurried)
    packer.prepare()
    cache = open_cache(config, place)
    return Worker(
        config.name,
        queue=queue,
        store=store,
        cache=cache,
        seen=Seen(config.url.public, queue.ledger, time.time),
        packer=packer,
        publisher_of=lambda visible, failed: Publisher(
            cache, packer, compression, keys, visible, failed, room_bytes
        ),
        upstream_keys=config.upstream_keys,
        around=Surroundings(time.time, random.random, bus, Backoff()),
    )


def raise_open_files() -> None:
    """Let this process open as many files as it may; each request under way takes one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def load_key(file: Path) -> SecretKey:
    """The secret key in *file*; no message shows any of it."""
    try:
        text = file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise UsageError(
            f"cannot read the secret key file {file}: {reason}",
            f"make a key with: narpost keygen NAME {file} {file}.pub",
        ) from error
    try:
        return SecretKey.parse(text)
    except UsageError as error:
        raise UsageError(f"the secret key file {file}: {error.message}", error.hint) from error

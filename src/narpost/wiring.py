"""Puts the parts together: the only file that knows every room.

What is heavy is imported where it is put together, so that commands that only look start at once.
"""

import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from narpost.config import CacheConfig, Config
from narpost.errors import UsageError
from narpost.nix.signing import SecretKey
from narpost.nix.store_url import StoreUrl
from narpost.queue.spool import Spool
from narpost.store.place import Place

if TYPE_CHECKING:
    from narpost.cache.binary_cache import BinaryCache
    from narpost.cache.bucket import Bucket
    from narpost.daemon.daemon import Daemon
    from narpost.events import Bus
    from narpost.push.worker import Worker
    from narpost.queue.queue import Queue
    from narpost.store.local import LocalStore

_OTHERS = 0o077


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
    from narpost.nix.cache_info import CacheInfo

    info = CacheInfo.from_parameters(place.store_dir, config.url.parameters)
    return BinaryCache(open_bucket(config.url), info)


def open_bucket(url: StoreUrl) -> "Bucket":
    """The bucket or folder that *url* names."""
    if url.scheme == "file":
        from narpost.cache.folder import open_folder

        return open_folder(url)
    from narpost.cache.object_store import open_s3

    return open_s3(url)


def check_parameters(url: StoreUrl, place: Place) -> None:
    """See that the cache's parameters have values that they can have."""
    from narpost.nix.cache_info import CacheInfo
    from narpost.push.compression import Compression

    Compression.from_parameters(url.parameters)
    CacheInfo.from_parameters(place.store_dir, url.parameters)


def build_daemon(config: Config, place: Place, bus: "Bus", store: "LocalStore") -> "Daemon":
    """A daemon over the configured queue and caches; keys and folders are checked here."""
    from narpost.daemon.daemon import Daemon
    from narpost.daemon.intake import Intake
    from narpost.queue.ledger import Ledger
    from narpost.queue.lock import DaemonLock
    from narpost.queue.queue import Queue

    keys = [load_keys(cache) for cache in config.caches]
    spool = open_spool(config, place)
    spool.prepare(place.gcroots)
    ledger = Ledger(config.state)
    ledger.prune(time.time())
    names = [cache.name for cache in config.caches]
    queue = Queue(spool, ledger, names, clock=time.time, emit=bus)
    workers = [
        _build_worker(cache, secret, queue, store, config.state, place, bus)
        for cache, secret in zip(config.caches, keys, strict=True)
    ]
    return Daemon(queue, Intake(queue, store, bus), workers, DaemonLock(config.directory), bus)


def _build_worker(
    config: CacheConfig,
    keys: Sequence[SecretKey],
    queue: "Queue",
    store: "LocalStore",
    state: Path,
    place: Place,
    bus: "Bus",
) -> "Worker":
    from narpost.backoff import Backoff
    from narpost.push.compression import Compression
    from narpost.push.pack import Packer
    from narpost.push.publish import Publisher
    from narpost.push.seen import Seen
    from narpost.push.worker import Surroundings, Worker

    compression = Compression.from_parameters(config.url.parameters)
    hurried = None if config.backlog_level is None else compression.at(str(config.backlog_level))
    packer = Packer(store, compression, state / "packed" / config.name, hurried)
    packer.prepare()
    cache = open_cache(config, place)
    return Worker(
        config.name,
        queue=queue,
        store=store,
        cache=cache,
        seen=Seen(config.url.public, queue.ledger, time.time),
        packer=packer,
        publisher_of=lambda *tell: Publisher(cache, packer, compression, keys, *tell),
        upstream_keys=config.upstream_keys,
        around=Surroundings(time.time, random.random, bus, Backoff()),
    )


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

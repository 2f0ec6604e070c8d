"""A daemon that is killed at any instant loses nothing, and shows nothing by halves.

It dies before its first, second, and so on to the last call that makes, moves or removes a file; at
each of its requests to a server; and at two hundred random instants while Nix builds.
"""

import hashlib
import itertools
import os
import random
import shutil
import signal
import subprocess
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from narpost.nix.cache_names import narinfo_key
from narpost.nix.hashes import Hash
from narpost.nix.path_info import PathInfo
from narpost.nix.signing import PublicKey
from narpost.push.compression import Compression
from narpost.push.pack import pack_to_file
from support import fault_proxy, soak
from support.cache_promise import FolderCache, PublishedCache
from support.fake_store import FakeStore, store_path
from support.fault_proxy import FaultProxy, Stall
from support.machine import COMMAND_SECONDS, PROGRAM, Machine, large
from support.private_store import derivation
from support.programs import require
from support.radosgw import S3Server
from support.s3 import BucketCache, S3Bucket, write_credentials

LIBRARY = derivation("library", "echo code > $out")
USER = derivation("user", references=[LIBRARY])
# What makes, moves and removes files, and fills the ledger. What is written elsewhere is seen by
# nobody until it is moved.
CALLS = ["ftruncate", "link", "mkdir", "pwrite64", "rename", "symlink", "unlink"]
# SQLite writes a file page by page, which is its own affair: every so manieth is enough.
STRIDES = {"pwrite64": 8}
# From shortly before a daemon has started to when it has posted what a build has made meanwhile.
LIFE_SECONDS = (0.1, 0.3)
TWO_DAYS_SECONDS = 2 * 86400


@pytest.fixture
def strace() -> None:
    """The program that kills at a call, which its user must be allowed to."""
    require(missing_for_strace(), "killing at a call")


@pytest.fixture(scope="module")
def proxy(s3_server: S3Server) -> Iterator[FaultProxy]:
    """What stands between a daemon and the server."""
    with fault_proxy.running(s3_server.endpoint) as proxy:
        yield proxy


@pytest.mark.usefixtures("strace")
@pytest.mark.parametrize("call", CALLS)
def test_a_first_life_that_ends_at_a_call_loses_nothing(machine: Machine, call: str) -> None:
    """With neither ledger nor cache yet, and derivations in the queue: it is killed at each."""
    paths = machine.build(LIBRARY, USER, large("large"))
    links = links_in(machine.queue)

    # So that Nix is not among the processes which are killed.
    with machine.store.daemon():
        numbers = itertools.count(1, STRIDES.get(call, 1))
        kills = 0
        while is_killed_at(machine, call, next(numbers)):
            kills += 1
            assert_nothing_is_lost(machine, paths)
            assert_a_drain_ends_well(machine, paths)
            shutil.rmtree(machine.cache)
            shutil.rmtree(machine.state)
            put_links(machine.queue, links)

    assert kills > 0
    assert_all_is_posted(machine, paths)


@pytest.mark.usefixtures("strace")
@pytest.mark.parametrize("call", ["link", "rename", "unlink"])
def test_a_later_life_that_ends_at_a_call_loses_nothing(machine: Machine, call: str) -> None:
    """With a cache from before, and only outputs in the queue: it is killed at each."""
    paths = machine.build(LIBRARY, USER, large("large"))
    with machine.store.daemon():
        machine.narpost("daemon", "--drain")

        kills = 0
        while is_killed_at_with_all_to_do(machine, call, kills + 1, paths):
            kills += 1
            assert_nothing_is_lost(machine, paths)
            assert_a_drain_ends_well(machine, paths)

    assert kills > 0
    assert_all_is_posted(machine, paths)


def test_a_life_that_ends_at_a_request_loses_nothing(
    machine: Machine, proxy: FaultProxy, s3_server: S3Server
) -> None:
    """It is killed at its first request to a server, at its second, and so on to the last."""
    write_credentials(machine.store.home, {"default": s3_server})
    paths = machine.build(LIBRARY, USER, large("large"))
    links = links_in(machine.queue)

    kills = 0
    bucket = S3Bucket.create(s3_server)
    post_to(machine, bucket, proxy.endpoint)
    while is_killed_at_request(machine, proxy, kills + 1):
        kills += 1
        assert_nothing_is_lost(machine, paths, bucket)
        assert_a_drain_ends_well(machine, paths, bucket)
        shutil.rmtree(machine.state)
        put_links(machine.queue, links)
        bucket = S3Bucket.create(s3_server)
        post_to(machine, bucket, proxy.endpoint)

    assert kills >= len(paths) * 3
    assert_all_is_posted(machine, paths, bucket)


@pytest.mark.parametrize("seed", range(soak.times(4)))
def test_a_daemon_killed_at_random_while_nix_builds_loses_nothing(
    machine: Machine, seed: int
) -> None:
    """Forty lives of random length; what was built is posted or queued, and in the end posted."""
    chance = random.Random(seed)
    paths: set[str] = set()

    with ThreadPoolExecutor(1) as beside:
        for series in range(4):
            building = beside.submit(machine.build, *builds(series))
            for _ in range(10):
                machine.live_for(chance.uniform(*LIFE_SECONDS))
                machine.assert_cache_keeps_its_promise()
            paths.update(building.result())
            assert_nothing_is_lost(machine, paths)

    paths.update(machine.build(derivation("last")))
    assert_a_drain_ends_well(machine, paths)


def test_a_daemon_killed_at_random_loses_nothing_on_a_server(
    machine: Machine, s3_bucket: S3Bucket
) -> None:
    """The same with a bucket for a cache: forty lives."""
    chance = random.Random(4)
    write_credentials(machine.store.home, {"default": s3_bucket.server})
    post_to(machine, s3_bucket, s3_bucket.server.endpoint)
    paths: set[str] = set()

    with ThreadPoolExecutor(1) as beside:
        for series in range(4):
            building = beside.submit(machine.build, *builds(series))
            for _ in range(10):
                machine.live_for(chance.uniform(*LIFE_SECONDS))
            paths.update(building.result())
            assert_nothing_is_lost(machine, paths, s3_bucket)

    paths.update(machine.build(derivation("last")))
    assert_a_drain_ends_well(machine, paths, s3_bucket)


@pytest.mark.usefixtures("strace")
def test_a_push_that_is_killed_leaves_no_root_behind(machine: Machine) -> None:
    """It makes links for a daemon: what it leaves half made keeps no path for ever."""
    path, other = machine.add("note", "pushed"), machine.add("other", "pushed too")

    with machine.daemon():
        killed = machine.run(*killing_at("rename", 1), PROGRAM, "push", path, check=False)
        machine.narpost("push", other)
    machine.narpost("push", other)
    machine.collect_garbage()

    assert killed.returncode == -signal.SIGKILL
    assert machine.posted() == {other}
    assert machine.lost([path]) == {path}


def test_what_was_packed_for_a_cache_that_is_no_more_is_cleared_away(machine: Machine) -> None:
    """A killed daemon has left it, and then the cache got another name."""
    machine.configure(machine.cache_section("?compression=xz&compression-level=0", name="old"))
    (path,) = machine.build(large("large", 20_000_000))
    with machine.daemon() as daemon:
        machine.wait_until(lambda: bool(machine.packed_files()), "it is packed")
        daemon.kill()
    left_over = machine.packed_files()
    machine.configure(machine.cache_section(name="new"))

    machine.narpost("daemon", "--drain")

    assert left_over != []
    assert_all_is_posted(machine, [path])


@pytest.mark.parametrize("chunk_bytes", [100, 1 << 16])
def test_what_is_packed_again_has_the_same_name(tmp_path: Path, chunk_bytes: int) -> None:
    """However a NAR comes in, so that the next life finds the one that was sent before."""
    store = ChunkedStore(b"header\n" * 20 + random.Random(0).randbytes(5 << 20))

    first = pack_to_file(store.info, store, Compression(), tmp_path / "first")
    store.chunk_bytes = chunk_bytes
    again = pack_to_file(store.info, store, Compression(), tmp_path / "again")

    assert again.file_hash == first.file_hash


class ChunkedStore(FakeStore):
    """Has one path with *nar*, which comes in chunks of *chunk_bytes*."""

    def __init__(self, nar: bytes) -> None:
        path = store_path("chunked")
        self.info = PathInfo(path, Hash.sha256(hashlib.sha256(nar).digest()), len(nar))
        self.chunk_bytes = 1 << 20
        self._nar = nar
        super().__init__({path: self.info})

    @contextmanager
    def nar(self, info: PathInfo) -> Iterator[Iterator[bytes]]:
        """The NAR in chunks."""
        starts = range(0, info.nar_bytes, self.chunk_bytes)
        yield (self._nar[start : start + self.chunk_bytes] for start in starts)


def missing_for_strace() -> list[str]:
    """Name what it takes to kill at a call, and this machine or this user lacks."""
    if not shutil.which("strace"):
        return ["strace"]
    trial = ["strace", "-qq", "-o", os.devnull, "true"]
    done = subprocess.run(trial, capture_output=True, timeout=COMMAND_SECONDS, check=False)
    return [] if done.returncode == 0 else ["strace (which may trace nothing here)"]


def builds(series: int) -> list[str]:
    """Expressions that no other series builds: a chain of small paths, and some large ones."""
    chain = [derivation(f"link-{series}-0")]
    for number in range(1, 30):
        chain.append(derivation(f"link-{series}-{number}", references=chain[-1:]))
    return [*chain, *(large(f"large-{series}-{number}") for number in range(3))]


def post_to(machine: Machine, bucket: S3Bucket, endpoint: str) -> None:
    """Have *machine* post to *bucket* by way of *endpoint*."""
    url = bucket.url({"endpoint": endpoint.removeprefix("http://")}).render()
    section = f'[[cache]]\nname = "main"\nurl = "{url}"\n'
    machine.configure(f'{section}secret-key-files = ["{machine.secret_key}"]\n')


def links_in(queue: Path) -> dict[str, Path]:
    """The links by their names."""
    return {link.name: link.readlink() for link in queue.iterdir()}


def put_links(queue: Path, links: dict[str, Path]) -> None:
    """Queue what was queued before."""
    for name, target in links.items():
        (queue / name).symlink_to(target)


def is_killed_at(machine: Machine, call: str, number: int) -> bool:
    """Run a drain that dies before its *number*-th *call*; whether it made so many.

    Each thread counts its own calls: it dies with the first that comes so far.
    """
    done = machine.run(*killing_at(call, number), PROGRAM, "daemon", "--drain", check=False)
    assert done.returncode in {0, -signal.SIGKILL}, done.stderr
    return done.returncode != 0


def killing_at(call: str, number: int) -> tuple[str, ...]:
    """What to put before a command to kill it so."""
    inject = f"inject={call}:signal=KILL:when={number}"
    return ("strace", "-f", "-qq", "-o", os.devnull, "-e", f"trace={call}", "-e", inject)


def is_killed_at_with_all_to_do(machine: Machine, call: str, number: int, paths: list[str]) -> bool:
    """The same, with *paths* queued, gone from the cache, and forgotten."""
    shutil.rmtree(machine.state)
    for file in [*machine.cache.glob("*.narinfo"), *machine.cache.glob("nar/*")]:
        file.unlink()
    put_links(machine.queue, {Path(path).name: Path(path) for path in paths})
    return is_killed_at(machine, call, number)


def is_killed_at_request(machine: Machine, proxy: FaultProxy, number: int) -> bool:
    """Run a drain that dies at its *number*-th request; whether it made so many.

    That one and those that follow do not reach the server any more.
    """
    requests = itertools.count(1)
    fault = proxy.begin(Stall(), lambda _request: next(requests) >= number)
    with machine.starting(PROGRAM, "daemon", "--drain") as process:
        machine.wait_until(lambda: bool(fault.met) or process.poll() is not None, "it asked")
        process.kill()
        code = process.wait(COMMAND_SECONDS)
    proxy.end()
    assert code in {0, -signal.SIGKILL}
    return code != 0


def assert_nothing_is_lost(
    machine: Machine, paths: Collection[str], bucket: S3Bucket | None = None
) -> None:
    """Each of *paths* is posted or queued, and the cache keeps its promises."""
    cache = cache_of(machine, bucket)
    assert cache.broken_promises(PublicKey.parse(machine.public_key.read_text())) == []
    lost = {machine.store_dir.parse(path) for path in set(paths) - machine.queued()}
    assert {narinfo_key(path) for path in lost} <= cache.keys()


def assert_a_drain_ends_well(
    machine: Machine, paths: Collection[str], bucket: S3Bucket | None = None
) -> None:
    """A last drain, some days later, posts all of *paths* and clears away what was left."""
    for left_over in machine.cache.glob(".incoming/*"):
        two_days_ago = left_over.stat().st_mtime - TWO_DAYS_SECONDS
        os.utime(left_over, (two_days_ago, two_days_ago))
    machine.narpost("daemon", "--drain")
    assert_all_is_posted(machine, paths, bucket)


def assert_all_is_posted(
    machine: Machine, paths: Collection[str], bucket: S3Bucket | None = None
) -> None:
    """The cache has *paths* and nothing else, and nothing is left of the work on them."""
    cache = cache_of(machine, bucket)
    assert_nothing_is_lost(machine, paths, bucket)
    assert machine.queued() == set()
    assert machine.packed_files() == []
    narinfos = cache.narinfos()
    assert {machine.store_dir.render(narinfo.info.path) for narinfo in narinfos} == set(paths)
    keys = {key for each in narinfos for key in (narinfo_key(each.info.path), each.url)}
    assert cache.keys() == keys | {"nix-cache-info"}


def cache_of(machine: Machine, bucket: S3Bucket | None) -> PublishedCache:
    """What readers see: *bucket*, else the cache in a folder."""
    if bucket is not None:
        return BucketCache(bucket, machine.store_dir)
    return FolderCache(machine.cache, machine.store_dir)

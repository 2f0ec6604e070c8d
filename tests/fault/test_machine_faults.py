"""A machine that runs out of room, files or order: what is queued stays so, and is posted later.

The ledger is memory and not truth: whatever becomes of it, paths are posted.
"""

import random
import shutil
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from narpost.errors import CacheUnreachable
from narpost.nix import base32
from narpost.nix.store_path import StorePath
from narpost.queue.ledger import Ledger, Standing
from narpost.queue.queue import Queue
from narpost.queue.spool import Spool
from narpost.queue.states import State
from support import mounts
from support.fake_store import STORE_DIR, store_path
from support.machine import Machine, RunningDaemon, base_names, large
from support.mounts import MountNamespace
from support.private_store import derivation
from support.programs import require
from support.s3 import BucketCache, S3Bucket, write_credentials

TEN = [derivation(f"build-{number}") for number in range(10)]
DAY_SECONDS = 86400.0
MEBIBYTE = 1 << 20
MEMORY_LIMIT_BYTES = 512 * MEBIBYTE
VANISHED = 100_000
USAGE = 2


@pytest.fixture
def namespace() -> Iterator[MountNamespace]:
    """Mounts of the test's own."""
    require(mounts.missing(), "a small disk of the test's own")
    with mounts.private_mounts() as namespace:
        yield namespace


def test_a_full_disk_for_packed_files_holds_up_only_what_is_large(
    machine: Machine, namespace: MountNamespace
) -> None:
    """What is packed in memory is posted; the rest follows when there is room again."""
    packed = machine.state / "packed"
    mount_small(namespace, packed, "1m")
    small = machine.build(*TEN)
    (path,) = machine.build(large("large"))

    with within(machine, namespace).daemon() as daemon:
        machine.wait_until(lambda: says(daemon, "no space left on device"), "it was tried")
        machine.wait_until(lambda: machine.queued() == {path}, "the small ones are posted")
        posted_without_room = machine.posted()
        left_over = [file for file in namespace.seen(packed).rglob("*") if file.is_file()]
        namespace.mount("-o", "remount,size=64m", packed)
        machine.wait_until_nothing_is_queued()

    assert posted_without_room == set(small)
    assert left_over == []
    assert machine.posted() == {path, *small}
    machine.assert_cache_keeps_its_promise()


def test_a_full_disk_for_the_ledger_holds_nothing_up(
    machine: Machine, namespace: MountNamespace
) -> None:
    """Nothing can be remembered for a while; all is posted, and later ones are remembered."""
    mount_small(namespace, machine.state, "256k")
    filler = namespace.seen(machine.state / "filler")

    with within(machine, namespace).daemon() as daemon:
        fill(filler)
        during = machine.build(*TEN)
        machine.wait_until(lambda: machine.posted() == set(during), "all are posted")
        machine.wait_until_nothing_is_queued()
        filler.unlink()
        (after,) = machine.build(derivation("after"))
        machine.wait_until_nothing_is_queued()

    assert daemon.process.returncode == 0
    assert machine.posted() == {after, *during}
    machine.assert_cache_keeps_its_promise()


def test_a_full_disk_for_the_queue_fails_no_build(
    machine: Machine, namespace: MountNamespace
) -> None:
    """The hook says so with the remedy, which works as soon as there is room again."""
    mount_small(namespace, machine.queue, "1m,nr_inodes=3")
    inside = within(machine, namespace)
    (queued,) = inside.build(derivation("queued"))

    done = inside.run("nix-build", "--no-out-link", "--expr", derivation("one-too-many"))
    (path,) = done.stdout.split()
    remedy = f"narpost push {deriver_of(machine, path)} {path}"
    inside.narpost("daemon", "--drain")
    posted_before = machine.posted()
    inside.narpost(*remedy.split()[1:])

    assert remedy in done.stderr
    assert posted_before == {queued}
    assert machine.posted() == {queued, path}


def test_a_derivation_too_many_for_the_queue_holds_up_no_other(
    machine: Machine, namespace: MountNamespace
) -> None:
    """There is no room for its output, and none is needed to see that others' are posted."""
    mount_small(namespace, machine.queue, "1m,nr_inodes=12")
    inside = within(machine, namespace)
    # In the order in which they are looked at: the one too many comes first.
    first, *others = sorted(TEN[:6], key=lambda each: instantiated(machine, each))
    outputs = inside.build(*others)
    inside.run("nix-build", "--no-out-link", "--expr", first)

    inside.narpost("daemon", "--drain", check=False)

    left = {link.name for link in namespace.seen(machine.queue).iterdir()}
    assert machine.posted() >= set(outputs)
    assert left <= {Path(instantiated(machine, first)).name}


def test_a_queue_too_full_for_the_outputs_loses_no_derivation(
    machine: Machine, namespace: MountNamespace
) -> None:
    """Room for one link is enough to post its derivation's outputs one day: until then it stays."""
    (path,) = machine.build(derivation("made"))
    deriver = deriver_of(machine, path)
    mount_small(namespace, machine.queue, "1m,nr_inodes=2")
    inside = within(machine, namespace)
    inside.run("ln", "-s", deriver, machine.queue)

    refused = inside.narpost("daemon", "--drain", check=False)
    queued = [link.name for link in namespace.seen(machine.queue).iterdir()]
    namespace.mount("-o", "remount,nr_inodes=10", machine.queue)
    inside.narpost("daemon", "--drain")

    assert refused.returncode == 1
    assert "no space left on device" in refused.stderr
    assert queued == base_names([deriver])
    assert machine.posted() == {path}


def test_a_ledger_that_another_process_locks_holds_nothing_up(machine: Machine) -> None:
    """While somebody has the file to himself, all that is built is posted and settled."""
    with machine.daemon() as daemon:
        machine.build(derivation("before"))
        machine.wait_until_nothing_is_queued()
        with closing(sqlite3.connect(machine.ledger, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            during = machine.build(*TEN)
            machine.wait_until(lambda: machine.posted() >= set(during), "all are posted")
            machine.wait_until_nothing_is_queued()
            other.execute("ROLLBACK")
        (after,) = machine.build(derivation("after"))
        machine.wait_until_nothing_is_queued()

    assert daemon.process.returncode == 0
    assert machine.posted() >= {after, *during}


def test_a_state_folder_that_becomes_read_only_holds_nothing_up(
    machine: Machine, namespace: MountNamespace
) -> None:
    """As a disk does that Linux has found to be broken: what fits into memory is posted."""
    machine.state.mkdir()

    with within(machine, namespace).daemon() as daemon:
        machine.build(derivation("before"))
        machine.wait_until_nothing_is_queued()
        namespace.mount("-t", "tmpfs", "-o", "ro", "tmpfs", machine.state)
        during = machine.build(*TEN)
        machine.wait_until(lambda: machine.posted() >= set(during), "all are posted")
        machine.wait_until_nothing_is_queued()

    assert daemon.process.returncode == 0


def test_a_state_folder_that_is_read_only_from_the_start_is_refused(
    machine: Machine, namespace: MountNamespace
) -> None:
    """One sentence, a hint, exit code 2; what is queued stays so."""
    machine.state.mkdir()
    namespace.mount("-t", "tmpfs", "-o", "ro", "tmpfs", machine.state)
    machine.build(*TEN)
    before = machine.queued()

    done = within(machine, namespace).narpost("daemon", "--drain", check=False)

    error, hint = done.stderr.splitlines()
    assert done.returncode == USAGE
    assert error.startswith(f"error: cannot write to {machine.state}")
    assert hint.startswith("hint: set state")
    assert machine.queued() == before


def test_a_ledger_with_any_wrong_bytes_holds_nothing_up(machine: Machine) -> None:
    """Thirty ledgers of which a part was overwritten: with each of them all is posted."""
    paths = machine.build(*TEN)
    remember(machine, fixed_paths())
    good = machine.ledger.read_bytes()

    failed = []
    for seed in range(30):
        machine.ledger.write_bytes(spoilt(good, random.Random(seed)))
        queue_again(machine, paths)
        done = machine.narpost("daemon", "--drain", check=False)
        if (done.returncode, machine.queued()) != (0, set()):
            failed.append((seed, done.returncode, done.stderr))

    assert failed == []
    assert machine.posted() == set(paths)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE entry SET state = 'a state of the future'",
        "UPDATE entry SET path = path || ' '",
        "UPDATE entry SET tries = -1, due_at = -1e300",
        "UPDATE entry SET due_at = 1e300",
        "DROP TABLE entry",
        "ALTER TABLE entry ADD COLUMN more TEXT",
        "ALTER TABLE entry RENAME COLUMN reason TO why",
        "DROP TABLE settled; CREATE VIEW settled AS SELECT 1",
    ],
)
def test_a_ledger_of_another_making_holds_nothing_up(machine: Machine, change: str) -> None:
    """One that a later narpost has left, or a person with a tool: all is posted."""
    paths = machine.build(*TEN)
    remember(machine, map(machine.store_dir.parse, paths))
    with closing(sqlite3.connect(machine.ledger)) as ledger:
        ledger.executescript(change)
    queue_again(machine, paths)

    machine.narpost("daemon", "--drain")

    assert machine.posted() == set(paths)
    assert machine.queued() == set()


def test_a_ledger_overwritten_in_mid_work_holds_nothing_up(machine: Machine) -> None:
    """Its bytes are replaced under a running daemon, which posts all that is built later."""
    with machine.daemon() as daemon:
        machine.build(derivation("before"))
        machine.wait_until_nothing_is_queued()
        for file in machine.state.glob("ledger.sqlite*"):
            file.write_bytes(b"this is no database" * (file.stat().st_size // 19))
        during = machine.build(*TEN)
        machine.wait_until(lambda: machine.posted() >= set(during), "all are posted")
        machine.wait_until_nothing_is_queued()

    assert daemon.process.returncode == 0


@pytest.mark.parametrize("days", [-1, 1])
def test_a_clock_that_jumps_delays_no_retry(tmp_path: Path, days: int) -> None:
    """An entry that is to be tried again after a minute is, by a clock that was set by a day."""
    now = [1e9]
    queue = queue_of(tmp_path, now, "path")
    (path,) = queue.claim("main", 1)
    queue.postpone("main", path, CacheUnreachable("away"), 60)

    now[0] += days * DAY_SECONDS
    queue.look()
    now[0] += 60

    assert queue.claim("main", 1) == [path]


def test_a_clock_that_was_set_back_while_nothing_ran_delays_no_retry(tmp_path: Path) -> None:
    """What the ledger says of a time to come is not waited for a day."""
    now = [1e9]
    queue = queue_of(tmp_path, now, "path")
    (path,) = queue.claim("main", 1)
    queue.postpone("main", path, CacheUnreachable("away"), 60)
    queue.close()

    now[0] -= DAY_SECONDS
    later = queue_of(tmp_path, now, "path")
    now[0] += 300

    assert later.claim("main", 1) == [path]


def test_few_open_files_are_enough(machine: Machine, s3_bucket: S3Bucket) -> None:
    """With a limit of 64 open files, eighty small paths and a large one get to a server."""
    write_credentials(machine.store.home, {"default": s3_bucket.server})
    url = s3_bucket.url().render()
    machine.configure(f'[[cache]]\nname = "main"\nurl = "{url}"\nsign = false\n')
    many = [derivation(f"one-of-many-{number}") for number in range(80)]
    paths = machine.build(*many, large("large"))

    done = bounded(machine, "--nofile=64").narpost("daemon", "--drain", check=False)

    assert (done.returncode, machine.queued()) == (0, set()), done.stderr[-2000:]
    assert BucketCache(s3_bucket, machine.store_dir).paths() == set(paths)


def test_few_open_files_are_enough_for_a_folder(machine: Machine) -> None:
    """The same with a folder for a cache, which needs few."""
    paths = machine.build(*TEN, large("large"))

    bounded(machine, "--nofile=64").narpost("daemon", "--drain")

    assert machine.posted() == set(paths)
    assert machine.queued() == set()


def test_a_queue_of_a_hundred_thousand_is_taken_in(
    machine: Machine, namespace: MountNamespace
) -> None:
    """All but the last ten of its paths are gone: those are posted, the rest is set aside."""
    # A disk in memory, since nobody else makes or deletes so many links at once.
    mount_small(namespace, machine.queue, "1g,nr_inodes=0")
    queue = namespace.seen(machine.queue)
    for name in names_of_nothing(VANISHED):
        (queue / name).symlink_to(machine.store.store_dir / name)
    inside = within(machine, namespace)
    honest = inside.build(*TEN)

    with inside.daemon() as daemon:
        machine.wait_until(lambda: machine.posted() == set(honest), "they are posted", 60)
        machine.wait_until(lambda: lines(daemon, "set aside: ") == VANISHED, "all were tried", 60)
        peak_bytes = peak_memory(daemon.process.pid)

    left = {link.name for link in queue.iterdir()}
    assert left == set(names_of_nothing(VANISHED))
    assert peak_bytes < MEMORY_LIMIT_BYTES


def test_a_second_daemon_with_other_caches_is_refused_too(machine: Machine) -> None:
    """It is the queue that has one daemon: another state folder and cache make no difference."""
    other = replace(machine, folder=machine.folder / "other")
    other.folder.mkdir()
    other.config.write_text(
        f'[queue]\ndirectory = "{machine.directory}"\nstate = "{other.state}"\n'
        f'[[cache]]\nurl = "file://{other.cache}"\nsign = false\n'
    )

    with machine.daemon():
        second = other.narpost("daemon", "--drain", check=False)
        (path,) = machine.build(derivation("made"))
        machine.wait_until_nothing_is_queued()

    error, hint = second.stderr.splitlines()
    assert second.returncode == USAGE
    assert error == f"error: another narpost daemon works on the queue {machine.directory}"
    assert hint.startswith("hint: ")
    assert machine.posted() == {path}
    assert other.posted() == set()


def within(machine: Machine, namespace: MountNamespace) -> Machine:
    """*machine* with commands that see the mounts of *namespace*."""
    return replace(machine, wrapper=namespace.enter)


def bounded(machine: Machine, limit: str) -> Machine:
    """*machine* with commands under a limit of `prlimit`."""
    return replace(machine, wrapper=("prlimit", limit))


def mount_small(namespace: MountNamespace, folder: Path, size: str) -> None:
    """Put a disk of *size* at *folder*, for those in *namespace*."""
    folder.mkdir(parents=True, exist_ok=True)
    namespace.mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder)


def fill(file: Path) -> None:
    """Write zeros into *file* until its disk is full."""
    with file.open("wb", buffering=0) as sink:
        try:
            while True:
                sink.write(bytes(4096))
        except OSError:
            return


def says(daemon: RunningDaemon, text: str) -> bool:
    """Whether a line of the log has *text* in it."""
    return any(text in line for line in daemon.log())


def lines(daemon: RunningDaemon, start: str) -> int:
    """How many lines of the log begin so."""
    return sum(line.startswith(start) for line in daemon.log())


def instantiated(machine: Machine, expression: str) -> str:
    """The derivation of *expression*, built or not."""
    return machine.run("nix-instantiate", "--expr", expression).stdout.strip()


def deriver_of(machine: Machine, path: str) -> str:
    """The derivation that *path* was built by."""
    return machine.run("nix-store", "--query", "--deriver", path).stdout.strip()


def remember(machine: Machine, paths: Iterable[StorePath]) -> None:
    """Make a ledger that has *paths* as tried in vain, and a history."""
    tried = Standing(State.WAITING, tries=3, due_at=1e9, reason="the cache was away")
    with Ledger(machine.state) as ledger:
        for path in paths:
            ledger.remember(path, "main", tried)
            ledger.post(path, "main", (1000, 500), 1e9)
        for path in fixed_paths():
            ledger.settle(path, 1e9)


def fixed_paths() -> list[StorePath]:
    """Many paths, the same in each run of the tests."""
    return [store_path(f"fixed-{number}") for number in range(200)]


def spoilt(data: bytes, chance: random.Random) -> bytes:
    """*data* with a run of it overwritten, or cut off."""
    start = chance.randrange(len(data))
    if chance.random() < 0.2:
        return data[:start]
    wrong = chance.randbytes(chance.choice([1, 16, 512, 8192]))
    return (data[:start] + wrong + data[start + len(wrong) :])[: len(data)]


def queue_again(machine: Machine, paths: list[str]) -> None:
    """Queue *paths*, and empty the cache."""
    shutil.rmtree(machine.cache, ignore_errors=True)
    machine.run("ln", "-sf", "--", *paths, f"{machine.queue}/")


def queue_of(folder: Path, now: list[float], name: str) -> Queue:
    """A queue in *folder* with an entry *name*, for the cache `main`; *now* is the time."""
    spool = Spool(folder, STORE_DIR)
    spool.make()
    spool.add([store_path(name)])
    ledger = Ledger(folder / "state")
    queue = Queue(spool, ledger, ["main"], clock=lambda: now[0], emit=lambda _event: None)
    queue.look()
    return queue


def names_of_nothing(count: int) -> Iterator[str]:
    """Base names that no store has."""
    for number in range(count):
        yield f"{base32.encode(number.to_bytes(20, 'big'))}-vanished-{number}"


def peak_memory(pid: int) -> int:
    """The most bytes that a process has had in memory at any time."""
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) << 10

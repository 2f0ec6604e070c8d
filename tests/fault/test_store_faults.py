"""A store that is damaged, unreadable or not answering: what is bad stays out, the rest is posted.

Bytes that are not those that Nix registered are set aside; what Nix cannot give us is tried again.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from support.machine import Machine, RunningDaemon, large
from support.nix_processes import kill, serving
from support.private_store import derivation
from support.programs import require

GOOD = [derivation(f"good-{number}") for number in range(6)]
SMALL = derivation(
    "bad", "mkdir $out; echo first > $out/a; echo second > $out/b; echo end > $out/c"
)
# Beyond what is packed in memory.
LARGE_BYTES = 6_000_000
LARGE = derivation("bad", f"mkdir $out; head -c {LARGE_BYTES} /dev/urandom > $out/b")
# Random bytes take xz a second and more: time to do harm while they are packed.
SLOW = "?compression=xz&compression-level=0"
SLOW_BYTES = 20_000_000
# For so long Nix stands still: longer than we wait before we ask whether a silent NAR is over.
STOPPED_SECONDS = 2.5

Harm = Callable[[Path], object]


def flip_a_byte(file: Path) -> None:
    """One byte in the middle is another."""
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def lengthen(file: Path) -> None:
    """Some bytes more at the end."""
    file.write_bytes(file.read_bytes() + b"more than Nix knows of")


def shorten(file: Path) -> None:
    """The last byte is missing."""
    file.write_bytes(file.read_bytes()[:-1])


def empty(file: Path) -> None:
    """All of it is missing, as after a loss of power."""
    file.write_bytes(b"")


def add_a_file(file: Path) -> None:
    """Something lies beside it that was not there."""
    file.with_name("extra").write_text("nobody registered it")


def make_executable(file: Path) -> None:
    """The bytes are the same, and the NAR is not."""
    file.chmod(0o755)


BOTH_SIZES = pytest.mark.parametrize("bad", [SMALL, LARGE], ids=["small", "large"])
HARMS: list[Harm] = [flip_a_byte, lengthen, shorten, empty, add_a_file, make_executable]


@pytest.mark.parametrize("harm", HARMS)
@BOTH_SIZES
def test_what_is_not_as_registered_is_set_aside(machine: Machine, bad: str, harm: Harm) -> None:
    """It and what refers to it stay queued and invisible; all others are posted."""
    good = machine.build(*GOOD)
    spoilt, user = machine.build(bad, derivation("user", references=[bad]))
    change(Path(spoilt, "b"), harm)

    done = machine.narpost("daemon", "--drain", check=False)

    assert done.returncode == 1
    aside = [line for line in done.stderr.splitlines() if line.startswith("set aside: ")]
    assert len(aside) == 2
    assert all("is not what Nix registered" in line for line in aside)
    assert machine.queued() == {spoilt, user}
    assert_posted(machine, good)


@BOTH_SIZES
def test_what_was_put_right_is_posted_by_the_next_push(machine: Machine, bad: str) -> None:
    """Also where it was a large path, of which nothing is left in the folder of packed files."""
    (path,) = machine.build(bad)
    change(Path(path, "b"), flip_a_byte)
    machine.narpost("daemon", "--drain", check=False)
    left_over = machine.packed_files()
    change(Path(path, "b"), flip_a_byte)

    machine.narpost("push", path)

    assert left_over == []
    assert_posted(machine, [path])


def test_a_push_of_what_was_put_right_waits_for_the_daemon(machine: Machine) -> None:
    """What the daemon said before is not taken for its answer: the push ends when it has posted."""
    (path,) = machine.build(SMALL)
    change(Path(path, "b"), flip_a_byte)

    with machine.daemon():
        machine.wait_until(lambda: "set aside" in machine.narpost("status").stdout, "it is told")
        change(Path(path, "b"), flip_a_byte)
        done = machine.narpost("push", path, check=False)

    assert (done.returncode, done.stderr) == (0, "")
    assert_posted(machine, [path])


def test_what_is_no_longer_valid_is_set_aside(machine: Machine) -> None:
    """Somebody deleted it in spite of its root: it is named, and all others are posted."""
    good = machine.build(*GOOD)
    (gone,) = machine.build(SMALL)
    machine.run("nix-store", "--delete", "--ignore-liveness", gone)

    done = machine.narpost("daemon", "--drain", check=False)

    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("not posted: ")]
    assert "no longer in the store" in line
    assert machine.queued() == {gone}
    assert_posted(machine, good)


@BOTH_SIZES
def test_what_vanished_from_the_disk_holds_up_no_other(machine: Machine, bad: str) -> None:
    """Nix has it as valid and breaks off: when it is back and queued again, it is posted."""
    good = machine.build(*GOOD)
    (path,) = machine.build(bad)
    elsewhere = machine.folder / "elsewhere"
    Path(path).rename(elsewhere)

    with machine.daemon() as daemon:
        machine.wait_until(lambda: machine.queued() == {path}, "the others are posted")
        machine.wait_until(lambda: bool(reasons(daemon, path)), "it was tried")
        posted_without = machine.posted()
        elsewhere.rename(path)
        queue_again(machine, path)
        machine.wait_until_nothing_is_queued()

    assert posted_without == set(good)
    assert_posted(machine, [*good, path])


@BOTH_SIZES
def test_what_may_not_be_read_holds_up_no_other(machine: Machine, bad: str) -> None:
    """Who may not read a file of it posts all others, and the path when the file can be read."""
    good = machine.build(*GOOD)
    (path,) = machine.build(bad)
    Path(path, "b").chmod(0)

    with without_rights_over_files(machine).daemon() as daemon:
        machine.wait_until(lambda: machine.queued() == {path}, "the others are posted")
        machine.wait_until(lambda: bool(reasons(daemon, path)), "it was tried")
        posted_without = machine.posted()
        Path(path, "b").chmod(0o444)
        queue_again(machine, path)
        machine.wait_until_nothing_is_queued()

    assert posted_without == set(good)
    assert_posted(machine, [*good, path])


@BOTH_SIZES
def test_what_nix_cannot_read_is_not_called_corrupt(machine: Machine, bad: str) -> None:
    """What it says in the place of bytes is not the path's: nobody is told to repair it."""
    (path,) = machine.build(bad)
    Path(path, "b").chmod(0)

    with without_rights_over_files(machine).daemon() as daemon:
        machine.wait_until(lambda: bool(reasons(daemon, path)), "it was tried")

    assert not any("is not what Nix registered" in reason for reason in reasons(daemon, path))


def test_a_nix_daemon_killed_in_the_middle_of_a_nar_loses_nothing(machine: Machine) -> None:
    """Its children that serve us are killed: the NAR that broke off is packed anew."""
    paths = machine.build(large("large", SLOW_BYTES), *GOOD)

    with machine.store.daemon(), posting_slowly(machine):
        kill(serving(machine.store))
        machine.wait_until_nothing_is_queued()

    assert_posted(machine, paths)


def test_a_nix_daemon_restarted_in_the_middle_of_a_nar_loses_nothing(machine: Machine) -> None:
    """The one that listens is gone too, and another one comes in its place."""
    paths = machine.build(large("large", SLOW_BYTES), *GOOD)

    with ExitStack() as first:
        first.enter_context(machine.store.daemon())
        with posting_slowly(machine) as daemon:
            children = serving(machine.store)
            first.close()
            kill(children)
            machine.wait_until(lambda: bool(reasons(daemon, paths[0])), "it was tried")
            machine.store.socket.unlink()
            with machine.store.daemon():
                machine.wait_until_nothing_is_queued()

    assert_posted(machine, paths)


def test_a_nix_daemon_that_stalls_holds_up_only_what_it_serves(machine: Machine) -> None:
    """While the NAR of a large path stands still others are posted; it is whole in the end."""
    (path,) = machine.build(large("large", SLOW_BYTES))

    with machine.store.daemon(), posting_slowly(machine):
        stalled = serving(machine.store)
        with stopped(stalled):
            others = machine.build(*GOOD)
            machine.wait_until(lambda: machine.queued() == {path}, "the others are posted")
            time.sleep(STOPPED_SECONDS)
            posted_meanwhile = machine.posted()
        machine.wait_until_nothing_is_queued()

    assert posted_meanwhile == set(others)
    assert_posted(machine, [path, *others])


def change(file: Path, harm: Harm) -> None:
    """Do *harm* to a file of the store, as a disk does: rights and times stay."""
    rights = [(each, each.stat().st_mode) for each in (file.parent, file)]
    for each, mode in rights:
        each.chmod(mode | 0o200)
    harm(file)
    if harm is not make_executable:
        file.chmod(rights[1][1])
    file.parent.chmod(rights[0][1])


def without_rights_over_files(machine: Machine) -> Machine:
    """*machine* with commands whom a file's mode binds, even if they are root's."""
    if os.geteuid() != 0:
        return machine
    rights = "-dac_override,-dac_read_search"
    bound = replace(machine, wrapper=("setpriv", "--bounding-set", rights, "--inh-caps", rights))
    can_be_bound = bound.run("true", check=False).returncode == 0
    require([] if can_be_bound else ["setpriv (which may bind nobody here)"], "an unreadable file")
    return bound


@contextmanager
def posting_slowly(machine: Machine) -> Iterator[RunningDaemon]:
    """A daemon that is in the middle of a large NAR, which takes it a while."""
    machine.configure(machine.cache_section(SLOW))
    with machine.daemon() as daemon:
        machine.wait_until(lambda: any(map(has_bytes, machine.packed_files())), "it is packed")
        yield daemon


def has_bytes(file: Path) -> bool:
    """Whether something was written into *file*; one that is gone has nothing."""
    try:
        return file.stat().st_size > 0
    except FileNotFoundError:
        return False


@contextmanager
def stopped(processes: list[int]) -> Iterator[None]:
    """Processes that stand still until the block ends."""
    send(signal.SIGSTOP, processes)
    try:
        yield
    finally:
        send(signal.SIGCONT, processes)


def send(what: signal.Signals, processes: list[int]) -> None:
    """Send a signal to those of *processes* that still run."""
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, what)


def reasons(daemon: RunningDaemon, path: str) -> list[str]:
    """Why *path* could not be posted, by the log, once for each try."""
    told, name = ("not posted yet: ", "set aside: "), Path(path).name
    return [line for line in daemon.log() if line.startswith(told) and name in line]


def queue_again(machine: Machine, path: str) -> None:
    """Queue *path* as the hook does after another build of it."""
    machine.run("ln", "-sf", "--", path, f"{machine.queue}/")


def assert_posted(machine: Machine, paths: list[str]) -> None:
    """Readers see *paths* and nothing else, and all of it is whole."""
    assert machine.posted() == set(paths)
    assert machine.packed_files() == []
    machine.assert_cache_keeps_its_promise()

"""Whatever lies in the queue folder: honest entries are posted, and nothing else is touched.

The daemon lives on, opens nothing outside of the store, and lets nothing that a terminal would obey
into its log or into `narpost status`. The hook ends well whatever it is told of a build.
"""

import os
import sqlite3
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from asyncinotify import Inotify, Mask
from hypothesis import given, settings

from narpost.nix.store_path import StoreDir
from narpost.queue.hook import render_hook
from narpost.queue.spool import Spool
from support import soak
from support.machine import Machine, base_names, large
from support.mutations import Changes, any_changes, changed
from support.private_store import derivation

SOME_FAILED = 1
HOOK_SECONDS = 20.0
HONEST = [derivation(f"honest-{number}") for number in range(5)]
UNBUILT = f"{'0' * 32}-unbuilt"
ESCAPE = "\x1b]0;owned\x07\x1b[2J\x1b[31m"
SECRET = "this must not leave the machine\n"

Plant = Callable[[Path], object]


def outside(machine: Machine) -> Path:
    """A folder that is none of ours, with a file in it."""
    folder = machine.folder / "outside"
    folder.mkdir(exist_ok=True)
    (folder / "secret").write_text(SECRET)
    return folder


@contextmanager
def unopened(folder: Path) -> Iterator[None]:
    """Whatever runs in this context: nobody opens *folder*, or reads a file in it."""
    with Inotify(sync_timeout=0) as inotify:
        inotify.add_watch(folder, Mask.OPEN | Mask.ACCESS)
        yield
        assert inotify.sync_get() is None


def link_to(target: str | bytes) -> Plant:
    """A link that leads to *target*, whatever that is."""
    return lambda place: place.symlink_to(os.fsdecode(target))


def mode_of(kind: int) -> Plant:
    """A file of another kind, such as a socket."""
    return lambda place: os.mknod(place, kind | 0o600)


def folder_with(name: str) -> Plant:
    """A folder that has a file."""

    def plant(place: Path) -> None:
        place.mkdir()
        (place / name).touch()

    return plant


def strays(machine: Machine, honest: str) -> Mapping[str | bytes, Plant]:
    """All that a queue folder can hold and that is no entry, by name; *honest* is in the store."""
    store, secret = machine.store.store_dir, outside(machine) / "secret"
    store_paths = (f"{letter * 32}-stray" for letter in "abcdfghijklmnpqrsvwxyz")
    return {
        "outside": link_to(str(secret)),
        next(store_paths): link_to(str(secret)),
        next(store_paths): link_to(str(secret.parent)),
        next(store_paths): link_to(f"{store}/../machine/outside/secret"),
        next(store_paths): link_to(honest),
        next(store_paths): link_to(f"{honest}/bin"),
        f"{Path(honest).name}x": link_to(honest),
        "another-name": link_to(honest),
        "relative": link_to(os.path.relpath(honest, machine.queue)),
        "a file in a store path": link_to(f"{honest}/bin/program"),
        next(store_paths): link_to(str(store)),
        next(store_paths): link_to("/"),
        next(store_paths): link_to("."),
        "circle": link_to("circle"),
        "nowhere": link_to("nowhere at all"),
        "far": link_to("/" + "x/" * 2040),
        "spoken": link_to(f"{store}/{ESCAPE}\nposted everything"),
        "bytes": link_to(b"/\xff\xfe\x9b31m"),
        "note": Path.touch,
        next(store_paths): lambda place: place.write_text(SECRET),
        next(store_paths): Path.mkdir,
        next(store_paths): folder_with(Path(honest).name),
        next(store_paths): mode_of(stat.S_IFIFO),
        next(store_paths): mode_of(stat.S_IFSOCK),
        "fifo": mode_of(stat.S_IFIFO),
        f"{ESCAPE}red": Path.touch,
        "line\nposted everything": Path.touch,
        "over\rwritten": link_to("/"),
        "tab\tvertical\vform\f": Path.touch,
        "\u202e\x9b31m\u2028\N{ZERO WIDTH SPACE}": Path.touch,
        b"\xff\xfe\x80": Path.touch,
        "n" * 255: Path.touch,
        "-rf": Path.touch,
        " ": Path.touch,
        "*": Path.touch,
        "...": Path.touch,
        f".{Path(honest).name}": link_to(honest),
    }


def plant(machine: Machine, kinds: Mapping[str | bytes, Plant]) -> set[Path]:
    """Put each of *kinds* into the queue folder; gives where they lie."""
    places = {machine.queue / os.fsdecode(name) for name in kinds}
    for name, put in kinds.items():
        put(machine.queue / os.fsdecode(name))
    return places


def described(places: set[Path]) -> dict[Path, tuple[int, int]]:
    """What lies there, so that a change would show."""
    return {place: (place.lstat().st_ino, place.lstat().st_mode) for place in places}


def is_fit_to_print(text: str) -> bool:
    """Whether *text* is lines with nothing in them that a terminal would obey."""
    return all(line.isprintable() for line in text.split("\n"))


# In the folder from the start.


def test_strays_of_every_kind_hold_nothing_up(machine: Machine) -> None:
    """Each is told in a line of its own and left as it is; the honest entries are posted."""
    paths = machine.build(*HONEST)
    places = plant(machine, strays(machine, paths[0]))
    before = described(places)

    with unopened(outside(machine)):
        done = machine.narpost("daemon", "--drain")

    assert machine.posted() == set(paths)
    machine.assert_cache_keeps_its_promise()
    assert described(set(machine.queue.iterdir())) == before
    assert is_fit_to_print(done.stderr)
    lines = done.stderr.removesuffix("\n").split("\n")
    assert len([line for line in lines if line.startswith("ignored in the queue")]) == len(places)
    assert len(lines) == len(places) + len(paths)


def test_strays_are_not_counted_nor_shown(machine: Machine) -> None:
    """Status and list tell of the honest entries only, for people and for programs."""
    (path,) = machine.build(HONEST[0])
    queued = len(machine.queued())
    plant(machine, strays(machine, path))

    shown = machine.narpost("status").stdout
    as_json = machine.narpost("status", "--json").stdout
    listed = machine.narpost("queue", "list").stdout

    assert shown.startswith(f"{queued} queued")
    assert f'"depth": {queued}' in as_json
    assert is_fit_to_print(shown)
    assert is_fit_to_print(as_json)
    assert len(listed.splitlines()) == 1 + queued
    assert is_fit_to_print(listed)


def test_ten_thousand_strays_hold_nothing_up(machine: Machine) -> None:
    """A running daemon posts what is built beside them."""
    for number in range(5000):
        (machine.queue / f"file-{number}").touch()
        (machine.queue / f"link-{number}").symlink_to("/nowhere")

    with machine.daemon() as daemon:
        paths = machine.build(*HONEST)
        machine.wait_until(lambda: machine.posted() == set(paths), "what was built is posted")
        machine.wait_until(lambda: len(machine.queued()) == 10_000, "its links are gone")

    assert len([line for line in daemon.log() if line.startswith("ignored")]) == 10_000


def test_an_entry_that_leads_to_nothing_is_set_aside_alone(machine: Machine) -> None:
    """It is named as not posted, and stays for a person to decide."""
    paths = machine.build(*HONEST)
    (machine.queue / UNBUILT).symlink_to(machine.store.store_dir / UNBUILT)

    done = machine.narpost("daemon", "--drain", check=False)

    assert done.returncode == SOME_FAILED
    assert [line for line in done.stderr.splitlines() if line.startswith("not posted: ")] == [
        f"not posted: {UNBUILT}: {UNBUILT} is no longer in the store"
    ]
    assert machine.posted() == set(paths)
    assert base_names(machine.queued()) == [UNBUILT]


@pytest.mark.parametrize("spelling", ["//{name}", "/./{name}", "/{name}/", "/{name}/.", "/{name}"])
def test_what_counts_as_queued_is_kept_by_nix(machine: Machine, spelling: str) -> None:
    """A link that Nix takes for no root is no entry, since its path may go at any time."""
    path = machine.add("note", "kept")
    name = Path(path).name
    target = f"{machine.store.store_dir}{spelling.format(name=name)}"
    (machine.queue / name).symlink_to(target)

    entries = Spool(machine.directory, StoreDir(str(machine.store.store_dir))).look().entries
    machine.collect_garbage()

    assert not entries or machine.lost([path]) == set()


KINDS = ("a file", "a link to outside", "a link to nothing", "a fifo", "a folder")


def put_in_the_way(machine: Machine, place: Path, kind: str) -> None:
    """Put something into the place of a link."""
    match kind:
        case "a file":
            place.touch()
        case "a link to outside":
            place.symlink_to(outside(machine) / "secret")
        case "a link to nothing":
            place.symlink_to("/nowhere")
        case "a fifo":
            os.mkfifo(place)
        case _:
            place.mkdir()


@pytest.mark.parametrize("kind", KINDS)
def test_a_push_whose_place_is_taken_is_done_or_failed(machine: Machine, kind: str) -> None:
    """Something else lies where its link belongs: never is it told as done when it is not."""
    path = machine.add("note", "pushed")
    put_in_the_way(machine, machine.queue / Path(path).name, kind)

    done = machine.narpost("push", path, check=False)

    is_posted = machine.cache.exists() and path in machine.posted()
    assert is_posted == (done.returncode == 0)


@pytest.mark.parametrize("kind", KINDS)
def test_an_output_whose_place_is_taken_is_not_lost(machine: Machine, kind: str) -> None:
    """Its derivation alone is queued: it waits until there is a link for the output."""
    paths = machine.build(*HONEST)
    first = min(link for link in machine.queued() if link.endswith(".drv"))
    (taken,) = machine.run("nix-store", "--query", "--outputs", first).stdout.split()
    for path in paths:
        (machine.queue / Path(path).name).unlink()
    place = machine.queue / Path(taken).name
    put_in_the_way(machine, place, kind)

    machine.narpost("daemon", "--drain", check=False)
    others = machine.posted() - {taken}
    if place.is_dir():
        place.rmdir()
    machine.narpost("daemon", "--drain")

    assert others == set(paths) - {taken}
    assert machine.posted() == set(paths)


# Swapped while the daemon works.


@pytest.mark.parametrize("kind", ["a file", "a link to outside", "a folder"])
def test_a_link_swapped_in_mid_work_changes_nothing_else(machine: Machine, kind: str) -> None:
    """What was begun is the store path; the daemon goes on, and posts what comes after."""
    machine.configure(machine.cache_section("?compression=xz"))

    with machine.daemon() as daemon:
        (path,) = machine.build(large("large"))
        machine.wait_until(lambda: bool(machine.packed_files()), "it is in mid-work")
        place = machine.queue / Path(path).name
        place.unlink()
        put_in_the_way(machine, place, kind)
        with unopened(outside(machine)):
            machine.wait_until(lambda: path in machine.posted(), "it is posted")
            later = machine.build(*HONEST)
            machine.wait_until(
                lambda: not {*later} & machine.queued() or daemon.process.poll() is not None,
                "what was built later is settled",
            )

    assert machine.posted() == {path, *later}
    machine.assert_cache_keeps_its_promise()


# Entries that Nix itself cannot make sense of.

GARBLED = f"x'{f'junk {ESCAPE}'.encode().hex()}ff'"
HARMS = {
    "a hash that is none": f"UPDATE ValidPaths SET hash = CAST({GARBLED} AS TEXT) WHERE path = ?1",
    "no size": "UPDATE ValidPaths SET narSize = 0 WHERE path = ?1",
    "references in a ring": "INSERT INTO Refs SELECT victim.id, referrer.id"
    " FROM ValidPaths victim, ValidPaths referrer"
    " WHERE victim.path = ?1 AND referrer.path LIKE '%-referrer'",
    "outputs that are none": f"UPDATE DerivationOutputs SET path = CAST({GARBLED} AS TEXT)"
    " WHERE path = ?1",
}


@pytest.mark.parametrize("harm", HARMS.values(), ids=HARMS)
def test_an_entry_that_nix_cannot_describe_holds_up_no_other(machine: Machine, harm: str) -> None:
    """Its row in Nix's database is damaged: it stays queued, and all others are posted."""
    victim = derivation("victim", "echo victim > $out")
    bad, referrer = machine.build(victim, derivation("referrer", references=[victim]))
    paths = machine.build(*HONEST)
    with closing(sqlite3.connect(machine.store.state_dir / "db" / "db.sqlite")) as database:
        changed_rows = database.execute(harm, (bad,)).rowcount
        database.commit()

    done = machine.narpost("daemon", "--drain", check=False)
    looks = (["status"], ["status", "--json"], ["queue", "list"])
    shown = "".join(machine.narpost(*look).stdout for look in looks)

    delayed = [line for line in done.stderr.splitlines() if line.startswith("not posted yet")]
    assert changed_rows == 1
    assert machine.posted() >= set(paths)
    assert [line for line in delayed if "-honest-" in line] == []
    assert machine.posted() | machine.queued() >= {bad, referrer}
    assert is_fit_to_print(done.stderr)
    assert is_fit_to_print(shown)


# The hook.

BUILT = f"/store/{'a' * 32}-program"
DERIVATION = f"/store/{'b' * 32}-program.drv"


@dataclass(frozen=True, slots=True)
class HookBench:
    """The hook, with a queue folder of its own."""

    folder: Path

    @property
    def queue(self) -> Path:
        """Where it queues."""
        return self.folder / "queue"

    def run(self, out_paths: bytes, derivation_path: str = DERIVATION) -> int:
        """Let it queue a build; gives its exit code."""
        self.queue.mkdir(exist_ok=True)
        script = self.folder / "hook"
        script.write_text(render_hook(self.folder))
        environment = {b"DRV_PATH": derivation_path.encode(), b"OUT_PATHS": out_paths}
        done = subprocess.run(
            ["/bin/sh", script],
            env=environment,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=HOOK_SECONDS,
            check=False,
        )
        return done.returncode

    def links(self) -> dict[str, str]:
        """What is queued: where each link leads."""
        return {link.name: str(link.readlink()) for link in self.queue.iterdir()}


ODD_OUTPUTS = {
    "a leading dash": b"-f --target-directory=/tmp --",
    "a newline": b"/store/one\n/store/two",
    "tabs and returns": b"/store/one\t/store/two\r",
    "escapes": ESCAPE.encode(),
    "no text": b"/store/\xff\xfe",
    "a pattern": b"/*/* ? [a-z]* ~ $HOME `id` $(id)",
    "dots": b". .. / // ../..",
    "twice": f"{BUILT} {BUILT}".encode(),
    "a name too long": b"/store/" + b"x" * 300,
    "a path too long": b"/store" + b"/x" * 3000,
    "quotes": b"'\"\\ ' \"",
    "100 KB": b" ".join(b"/store/%032d-%s" % (number, b"x" * 60) for number in range(1000)),
}


@pytest.mark.parametrize("odd", ODD_OUTPUTS.values(), ids=ODD_OUTPUTS)
def test_odd_outputs_fail_no_build_and_lose_no_honest_one(tmp_path: Path, odd: bytes) -> None:
    """Beside whatever else OUT_PATHS says, a store path and its derivation are queued."""
    bench = HookBench(tmp_path)

    code = bench.run(b"%s %s" % (odd, BUILT.encode()))

    assert code == 0
    assert bench.links().items() >= {(Path(each).name, each) for each in (BUILT, DERIVATION)}


@settings(derandomize=True, deadline=None, max_examples=soak.times(100))
@given(any_changes)
def test_outputs_of_any_bytes_fail_no_build(changes: Changes) -> None:
    """The hook ends with 0, writes nowhere but into the queue, and makes nothing but links."""
    said = changed(f"{BUILT} {BUILT}-dev {BUILT}-doc".encode(), changes).replace(b"\0", b"")
    with tempfile.TemporaryDirectory() as name:
        bench = HookBench(Path(name))

        code = bench.run(said)

        assert code == 0
        assert bench.links()[Path(DERIVATION).name] == DERIVATION
        assert {each.name for each in Path(name).iterdir()} == {"hook", "queue"}
        assert all(each.is_symlink() for each in bench.queue.iterdir())

"""What is remembered of the queue: memory, not truth."""

import subprocess
import sys
from pathlib import Path

import pytest

from narpost.errors import UsageError
from narpost.queue.ledger import FILE, HISTORY_SECONDS, Ledger, Standing, Totals
from narpost.queue.states import State
from support.fake_store import store_path

HELLO, WORLD = store_path("hello"), store_path("world")
FAILED = Standing(State.WAITING, tries=3, due_at=1234.5, reason="503 Slow Down")
ASIDE = Standing(State.SET_ASIDE, tries=1, reason="it is corrupt")
COMMAND_SECONDS = 30.0


def fill(folder: Path) -> None:
    """Write a ledger with an entry in it."""
    with Ledger(folder) as ledger:
        ledger.remember(HELLO, "main", FAILED)


def written_by_the_killed(folder: Path) -> None:
    """Let a process save an entry and end without closing the file."""
    program = (
        "import os, sys; from pathlib import Path;"
        "from narpost.queue.ledger import Ledger, Standing;"
        "from narpost.queue.states import State; from narpost.nix.store_path import StorePath;"
        "ledger = Ledger(Path(sys.argv[1]));"
        "standing = Standing(State.WAITING, 3, 1234.5, '503 Slow Down');"
        "ledger.remember(StorePath(sys.argv[2]), 'main', standing);"
        "ledger.save(); os._exit(0)"
    )
    command = [sys.executable, "-c", program, str(folder), HELLO.base_name]
    subprocess.run(command, check=True, timeout=COMMAND_SECONDS)


def test_remembers_how_each_entry_stands_with_each_cache(tmp_path: Path) -> None:
    """What was kept is there after reopening, in each of its parts."""
    with Ledger(tmp_path) as ledger:
        ledger.remember(HELLO, "main", FAILED)
        ledger.remember(HELLO, "other", ASIDE)

    with Ledger(tmp_path) as ledger:
        assert ledger.standings() == {
            (HELLO.base_name, "main"): FAILED,
            (HELLO.base_name, "other"): ASIDE,
        }


def test_the_last_standing_counts(tmp_path: Path) -> None:
    """An entry has one standing with a cache, not a history."""
    with Ledger(tmp_path) as ledger:
        ledger.remember(HELLO, "main", FAILED)
        ledger.save()
        ledger.remember(HELLO, "main", ASIDE)
        ledger.save()

        assert ledger.standings() == {(HELLO.base_name, "main"): ASIDE}


def test_forgets_an_entry_with_all_its_caches(tmp_path: Path) -> None:
    """What was taken out leaves nothing, and its neighbour stays."""
    with Ledger(tmp_path) as ledger:
        ledger.remember(HELLO, "main", FAILED)
        ledger.remember(HELLO, "other", ASIDE)
        ledger.remember(WORLD, "main", FAILED)
        ledger.forget(HELLO)
        ledger.save()

        assert ledger.standings() == {(WORLD.base_name, "main"): FAILED}


def test_what_has_settled_is_known_as_settled_and_no_longer_as_an_entry(tmp_path: Path) -> None:
    """Those who wait for it learn that every cache has it."""
    with Ledger(tmp_path) as ledger:
        ledger.remember(HELLO, "main", FAILED)
        ledger.settle(HELLO, now=10.0)
        ledger.save()

        assert ledger.has_settled(HELLO)
        assert not ledger.has_settled(WORLD)
        assert ledger.standings() == {}


def test_adds_up_what_was_posted_to_each_cache(tmp_path: Path) -> None:
    """From a time on, that time included."""
    with Ledger(tmp_path) as ledger:
        ledger.post(HELLO, "main", (100, 10), now=99.0)
        ledger.post(HELLO, "main", (200, 20), now=100.0)
        ledger.post(WORLD, "main", (400, 40), now=101.0)
        ledger.post(WORLD, "other", (800, 80), now=102.0)
        ledger.save()

        assert ledger.totals(since=100.0) == {
            "main": Totals(2, 600, 60),
            "other": Totals(1, 800, 80),
        }


def test_prunes_what_is_older_than_the_history(tmp_path: Path) -> None:
    """Old postings and settlings go; entries never do, however old."""
    now = 2 * HISTORY_SECONDS
    with Ledger(tmp_path) as ledger:
        ledger.remember(HELLO, "main", FAILED)
        for path, when in ((HELLO, now - HISTORY_SECONDS - 1), (WORLD, now - HISTORY_SECONDS + 1)):
            ledger.post(path, "main", (1, 1), when)
            ledger.settle(path, when)
        ledger.remember(HELLO, "main", FAILED)
        ledger.prune(now)
        ledger.save()

        assert ledger.totals(since=0.0) == {"main": Totals(1, 1, 1)}
        assert not ledger.has_settled(HELLO)
        assert ledger.has_settled(WORLD)
        assert ledger.standings() == {(HELLO.base_name, "main"): FAILED}


def test_keeps_what_a_cache_was_seen_to_have(tmp_path: Path) -> None:
    """By the cache's URL, and from a time on; what is unseen is gone."""
    with Ledger(tmp_path) as ledger:
        ledger.see("s3://one", [HELLO], now=99.0)
        ledger.see("s3://one", [WORLD], now=100.0)
        ledger.see("s3://two", [HELLO], now=101.0)
        ledger.see("s3://three", [HELLO], now=101.0)
        ledger.unsee("s3://three")

    with Ledger(tmp_path) as ledger:
        assert ledger.seen("s3://one", since=100.0) == {WORLD: 100.0}
        assert ledger.seen("s3://two", since=0.0) == {HELLO: 101.0}
        assert ledger.seen("s3://three", since=0.0) == {}


def test_makes_its_folder(tmp_path: Path) -> None:
    """A state folder that was deleted comes back."""
    fill(tmp_path / "var" / "lib" / "narpost")

    assert (tmp_path / "var" / "lib" / "narpost" / FILE).is_file()


def test_a_file_that_was_deleted_under_it_comes_back(tmp_path: Path) -> None:
    """Deleting it at any moment loses what was in it, and nothing else."""
    with Ledger(tmp_path) as ledger:
        ledger.remember(HELLO, "main", FAILED)
        ledger.save()
        for file in tmp_path.iterdir():
            file.unlink()
        ledger.remember(WORLD, "main", ASIDE)
        ledger.save()

    with Ledger(tmp_path) as ledger:
        assert ledger.standings() == {(WORLD.base_name, "main"): ASIDE}


def test_a_folder_that_was_deleted_under_it_comes_back(tmp_path: Path) -> None:
    """As with the file, so with the whole folder."""
    folder = tmp_path / "state"
    with Ledger(folder) as ledger:
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
        ledger.remember(WORLD, "main", ASIDE)
        ledger.save()

    with Ledger(folder) as ledger:
        assert ledger.standings() == {(WORLD.base_name, "main"): ASIDE}


@pytest.mark.parametrize(
    "rubbish", [b"not a database at all\n" * 100, b"SQLite format 3\0" + b"\xff" * 4096]
)
def test_a_file_that_is_no_database_is_put_aside(tmp_path: Path, rubbish: bytes) -> None:
    """It is kept for whoever wants to look, and a new one begins."""
    (tmp_path / FILE).write_bytes(rubbish)

    fill(tmp_path)

    with Ledger(tmp_path) as ledger:
        assert ledger.standings() == {(HELLO.base_name, "main"): FAILED}
    assert rubbish in {file.read_bytes() for file in tmp_path.glob("*.corrupt*")}


def test_a_file_that_broke_beside_its_log_is_put_aside(tmp_path: Path) -> None:
    """What a daemon that was killed had not yet moved from the log does not break the new file."""
    written_by_the_killed(tmp_path)
    file = tmp_path / FILE
    file.write_bytes(b"\xff" * file.stat().st_size)

    with Ledger(tmp_path) as ledger:
        ledger.remember(WORLD, "main", ASIDE)
        ledger.save()
        standings = ledger.standings()

    assert standings[WORLD.base_name, "main"] == ASIDE


def test_what_was_saved_outlives_a_kill(tmp_path: Path) -> None:
    """A daemon that is killed after saving loses nothing of it."""
    written_by_the_killed(tmp_path)

    with Ledger(tmp_path) as ledger:
        assert ledger.standings() == {(HELLO.base_name, "main"): FAILED}


def test_a_file_that_breaks_under_it_is_replaced(tmp_path: Path) -> None:
    """A save that finds the file broken begins a new one, and goes on."""
    fill(tmp_path)
    with Ledger(tmp_path) as ledger:
        (tmp_path / FILE).write_bytes(b"\xff" * 8192)
        for _ in range(2):
            ledger.remember(WORLD, "main", ASIDE)
            ledger.save()

    with Ledger(tmp_path) as ledger:
        assert ledger.standings()[WORLD.base_name, "main"] == ASIDE


def test_a_file_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    """The message names the file, the hint the setting."""
    (tmp_path / FILE).mkdir()

    with pytest.raises(UsageError, match="cannot write to") as caught:
        Ledger(tmp_path)

    assert "state" in caught.value.hint


def test_a_reader_sees_what_the_writer_saved(tmp_path: Path) -> None:
    """While the writer has the file open, and not before it has saved."""
    with Ledger(tmp_path) as writer:
        writer.remember(HELLO, "main", FAILED)
        with Ledger(tmp_path, is_writer=False) as reader:
            before = reader.standings()
        writer.save()
        with Ledger(tmp_path, is_writer=False) as reader:
            after = reader.standings()

    assert before == {}
    assert after == {(HELLO.base_name, "main"): FAILED}


def test_a_reader_makes_nothing(tmp_path: Path) -> None:
    """Where there is no ledger it reads an empty one, and leaves no file."""
    with Ledger(tmp_path / "state", is_writer=False) as reader:
        assert reader.standings() == {}
        assert not reader.has_settled(HELLO)
        assert reader.totals(since=0.0) == {}

    assert list(tmp_path.iterdir()) == []


def test_a_reader_does_not_mind_a_broken_file(tmp_path: Path) -> None:
    """It neither fails nor mends: that is the writer's."""
    (tmp_path / FILE).write_bytes(b"rubbish" * 1000)

    with Ledger(tmp_path, is_writer=False) as reader:
        assert reader.standings() == {}

    assert (tmp_path / FILE).read_bytes() == b"rubbish" * 1000

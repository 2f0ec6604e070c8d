"""`narpost queue`: what is queued is shown, tried again, dropped, and found where it was missed."""

import json
from pathlib import Path
from typing import Any

import pytest

from support.machine import Machine
from support.private_store import derivation


@pytest.fixture
def corrupt(machine: Machine) -> str:
    """A path that was set aside, since the disk has other bytes than Nix registered."""
    (path,) = machine.build(derivation("corrupt"))
    machine.flip_a_byte(path)
    machine.narpost("daemon", "--drain", check=False)
    return path


def listed(machine: Machine) -> list[dict[str, Any]]:
    """What `queue list --json` says."""
    entries: list[dict[str, Any]] = json.loads(machine.narpost("queue", "list", "--json").stdout)
    return entries


def unhook(machine: Machine) -> None:
    """From now on, nobody tells narpost what is built."""
    settings = machine.store.home / "nix.conf"
    lines = settings.read_text().splitlines()
    settings.write_text("\n".join(line for line in lines if "post-build-hook" not in line) + "\n")


def test_an_empty_queue_says_so(machine: Machine) -> None:
    """In words, and as an empty list."""
    assert machine.narpost("queue", "list").stdout == "nothing is queued\n"
    assert listed(machine) == []


def test_what_is_set_aside_is_listed_with_its_reason(machine: Machine, corrupt: str) -> None:
    """For people and for programs."""
    (entry,) = listed(machine)
    shown = machine.narpost("queue", "list").stdout

    assert entry["path"] == Path(corrupt).name
    assert (entry["cache"], entry["state"], entry["tries"]) == ("main", "set aside", 1)
    assert "is not what Nix registered" in entry["reason"]
    assert Path(corrupt).name in shown and entry["reason"] in shown


def test_what_was_set_aside_is_tried_again(machine: Machine, corrupt: str) -> None:
    """Once a person has mended it, and without a daemon the next one begins with it."""
    machine.flip_a_byte(corrupt)
    untried = machine.narpost("daemon", "--drain", check=False)

    done = machine.narpost("queue", "retry")
    machine.narpost("daemon", "--drain")

    assert untried.returncode == 1
    assert done.stdout == "1 path to be tried again\n"
    assert "no daemon works on this queue" in done.stderr
    assert machine.posted() == {corrupt}


def test_a_daemon_that_runs_tries_again_at_once(machine: Machine, corrupt: str) -> None:
    """It is told by the queue folder."""
    machine.flip_a_byte(corrupt)

    with machine.daemon():
        machine.narpost("queue", "retry", corrupt)
        machine.wait_until_nothing_is_queued()

    assert machine.posted() == {corrupt}


def test_what_is_dropped_is_neither_posted_nor_kept(machine: Machine, corrupt: str) -> None:
    """It leaves the queue, and the garbage collector may take it."""
    done = machine.narpost("queue", "drop", corrupt)
    drained = machine.narpost("daemon", "--drain")
    machine.collect_garbage()

    assert done.stdout == "1 path dropped\n"
    assert drained.returncode == 0
    assert listed(machine) == []
    assert machine.posted() == set()
    assert not Path(corrupt).exists()


@pytest.mark.parametrize("verb", ["retry", "drop"])
def test_a_path_that_is_not_queued_is_a_mistake(machine: Machine, verb: str) -> None:
    """It is named, with the way to see what is queued."""
    path = machine.add("stranger", "text")

    done = machine.narpost("queue", verb, path, check=False)

    assert done.returncode == 2
    assert f"{Path(path).name} is not queued" in done.stderr
    assert "narpost queue list" in done.stderr


def test_catching_up_queues_what_was_built_without_the_hook(machine: Machine) -> None:
    """All that was built here, and nothing that was only added."""
    unhook(machine)
    added = machine.add("note", "text")
    built = machine.build(derivation("first"), derivation("second"))

    done = machine.narpost("queue", "catch-up")
    queued = machine.queued()
    machine.narpost("daemon", "--drain")

    assert done.stdout == "2 paths queued\n"
    assert queued == set(built)
    assert added not in machine.posted()
    assert machine.posted() == set(built)


def test_catching_up_again_finds_only_what_is_new(machine: Machine) -> None:
    """Neither what the last look has found, nor what the hook has queued and was posted."""
    hooked = machine.build(derivation("hooked"))
    machine.narpost("daemon", "--drain")
    unhook(machine)
    machine.build(derivation("first"))
    first = machine.narpost("queue", "catch-up").stdout
    machine.narpost("daemon", "--drain")
    second = machine.narpost("queue", "catch-up").stdout
    new = machine.build(derivation("second"))

    third = machine.narpost("queue", "catch-up").stdout

    assert (first, second, third) == ("1 path queued\n", "0 paths queued\n", "1 path queued\n")
    assert machine.queued() == set(new)
    assert set(hooked) <= machine.posted()


def test_a_daemon_catches_up_at_its_start_where_it_shall(machine: Machine) -> None:
    """What a power cut took out of the queue folder is posted all the same."""
    built = machine.build(derivation("cut-off"))
    for link in machine.queue.iterdir():
        link.unlink()
    section = machine.cache_section()
    machine.configure(section)
    text = machine.config.read_text()
    machine.config.write_text(text.replace("[queue]\n", "[queue]\ncatch-up = true\n"))

    machine.narpost("daemon", "--drain")

    assert machine.posted() == set(built)


def test_what_was_set_aside_long_ago_is_dropped_where_it_shall(
    machine: Machine, corrupt: str
) -> None:
    """By the age of its link; what was set aside lately stays."""
    text = machine.config.read_text()
    machine.config.write_text(text.replace("[queue]\n", "[queue]\ndrop-set-aside-after-days = 2\n"))
    machine.narpost("daemon", "--drain", check=False)
    young = machine.queued()
    machine.run("touch", "-h", "-d", "3 days ago", machine.queue / Path(corrupt).name)

    machine.narpost("daemon", "--drain", check=False)

    assert young == {corrupt}
    assert machine.queued() == set()


def test_a_deep_queue_is_warned_of(machine: Machine) -> None:
    """Once, in the log; all is posted all the same."""
    text = machine.config.read_text()
    machine.config.write_text(text.replace("[queue]\n", "[queue]\nwarn-depth = 2\n"))
    built = machine.build(*(derivation(f"build-{number}") for number in range(3)))

    done = machine.narpost("daemon", "--drain")

    assert done.stderr.count("entries are queued") == 1
    assert machine.posted() == set(built)

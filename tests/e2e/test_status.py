"""`narpost status`: the one picture, for people and for programs."""

import json
from typing import Any

from support.machine import Machine
from support.private_store import derivation


def status(machine: Machine) -> dict[str, Any]:
    """What `status --json` says."""
    picture: dict[str, Any] = json.loads(machine.narpost("status", "--json").stdout)
    return picture


def test_a_machine_that_never_built_has_an_empty_picture(machine: Machine) -> None:
    """No queue folder, no ledger, no daemon: nothing is queued, and that is no error."""
    machine.queue.rmdir()

    shown = machine.narpost("status")
    picture = status(machine)

    assert shown.stdout.startswith("nothing is queued; the daemon is not running")
    assert (picture["depth"], picture["oldest_seconds"]) == (0, None)
    assert (picture["is_daemon_running"], picture["failures"]) == (False, [])


def test_looking_at_the_status_makes_no_file(machine: Machine) -> None:
    """Neither state folder nor ledger comes to be by looking."""
    machine.narpost("status")

    assert not machine.state.exists()


def test_what_waits_is_counted(machine: Machine) -> None:
    """Paths that are queued count, with the age of the oldest."""
    for number in range(3):
        path = machine.add(f"note-{number}", f"{number}")
        (machine.queue / path.rpartition("/")[2]).symlink_to(path)

    picture = status(machine)

    assert picture["depth"] == 3
    assert picture["oldest_seconds"] >= 0
    (cache,) = picture["caches"]
    assert (cache["name"], cache["url"]) == ("main", f"file://{machine.cache}")
    assert (cache["waiting"], cache["retrying"], cache["set_aside"]) == (3, 0, 0)


def test_what_was_posted_is_counted(machine: Machine) -> None:
    """After a drain: the number of paths, their bytes, and an empty queue."""
    machine.build(*(derivation(f"build-{number}") for number in range(3)))
    machine.narpost("daemon", "--drain")

    picture = status(machine)

    (cache,) = picture["caches"]
    assert picture["depth"] == 0
    assert cache["posted_today"] == 3
    assert cache["nar_bytes_today"] > cache["file_bytes_today"] > 0


def test_what_failed_is_shown_with_its_reason(machine: Machine) -> None:
    """A changed path is shown as set aside, with what is wrong with it."""
    (path,) = machine.build(derivation("bad", "echo good > $out"))
    machine.flip_a_byte(path)
    machine.narpost("daemon", "--drain", check=False)

    shown = machine.narpost("status")
    (failure,) = status(machine)["failures"]

    assert f"{machine.store.store_dir}/{failure['path']}" == path
    assert (failure["cache"], failure["state"], failure["tries"]) == ("main", "set aside", 1)
    assert "is not what Nix registered" in failure["reason"]
    assert "set aside after 1 " in shown.stdout


def test_a_daemon_at_work_is_seen(machine: Machine) -> None:
    """While a daemon works on the queue, both forms say so."""
    with machine.daemon():
        shown = machine.narpost("status")
        picture = status(machine)

    assert "the daemon is running" in shown.stdout
    assert picture["is_daemon_running"] is True


def test_a_status_of_many_looks_disturbs_no_daemon(machine: Machine) -> None:
    """Looking takes the lock for an instant only: a daemon that starts meanwhile gets it."""
    for _ in range(3):
        machine.narpost("status")
        with machine.daemon():
            assert status(machine)["is_daemon_running"] is True

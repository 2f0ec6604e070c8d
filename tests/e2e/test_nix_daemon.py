"""A machine whose Nix works through its daemon, as a multi-user installation does."""

from dataclasses import replace
from pathlib import Path

import pytest

from support.machine import Machine, base_names
from support.private_store import derivation


@pytest.fixture
def bare_path(tmp_path: Path) -> dict[str, str]:
    """A PATH on which there is no program at all, `nix-daemon` neither."""
    (tmp_path / "no-programs").mkdir()
    return {"PATH": str(tmp_path / "no-programs")}


def test_builds_through_the_daemon_are_queued_and_posted(machine: Machine) -> None:
    """The hook runs under nix-daemon, and clients of it build at once."""
    common = derivation("common", "echo shared by all > $out")
    builds = [derivation(f"build-{number}", references=[common]) for number in range(8)]

    with machine.store.daemon(), machine.daemon() as daemon:
        outputs = replace(machine, nix_remote="daemon").build_at_once(*builds)
        machine.wait_until_nothing_is_queued()
    (shared,) = machine.build(common)

    assert machine.posted() == {shared, *outputs}
    assert sorted(daemon.posted()) == base_names([shared, *outputs])
    machine.assert_cache_keeps_its_promise()


def test_auto_takes_the_socket_where_there_is_one(
    machine: Machine, bare_path: dict[str, str]
) -> None:
    """With no `nix-daemon` to start, the store is read through the running one."""
    (path,) = machine.build(derivation("made"))

    with machine.store.daemon():
        machine.narpost("daemon", "--drain", variables=bare_path)

    assert machine.posted() == {path}


def test_a_socket_can_be_named(machine: Machine, bare_path: dict[str, str]) -> None:
    """`store = "unix://…"` reads the store through that socket."""
    (path,) = machine.build(derivation("made"))

    with machine.store.daemon() as socket:
        machine.configure(f'[nix]\nstore = "unix://{socket}"\n', machine.cache_section())
        machine.narpost("daemon", "--drain", variables=bare_path)

    assert machine.posted() == {path}


def test_local_reads_the_store_without_the_socket(machine: Machine) -> None:
    """`store = "local"` starts a daemon of its own, also where a dead socket lies."""
    (path,) = machine.build(derivation("made"))
    with machine.store.daemon():
        pass
    assert machine.store.socket.is_socket()

    machine.configure('[nix]\nstore = "local"\n', machine.cache_section())
    machine.narpost("daemon", "--drain")

    assert machine.posted() == {path}


def test_a_nix_daemon_that_is_restarted_loses_us_nothing(machine: Machine) -> None:
    """What is queued while the Nix daemon was replaced under a running narpost is posted."""
    with machine.store.daemon(), machine.daemon():
        (before,) = machine.build(derivation("before"))
        machine.wait_until_nothing_is_queued()
        machine.store.socket.unlink()
        with machine.store.daemon():
            (after,) = machine.build(derivation("after"))
            machine.wait_until_nothing_is_queued()

    assert machine.posted() == {before, after}

"""`narpost wait`: returns when the daemon has posted what is waited for."""

from pathlib import Path

from support.machine import Machine
from support.private_store import derivation


def test_a_wait_right_after_a_build_finds_it_posted(machine: Machine) -> None:
    """However soon the daemon is done with a path, wait never takes it for lost."""
    with machine.daemon():
        for number in range(4):
            (path,) = machine.build(derivation(f"build-{number}"))

            machine.narpost("wait", path)

            assert path in machine.posted()


def test_a_wait_without_a_path_waits_for_all_that_is_queued(machine: Machine) -> None:
    """Builds of which the hook has just queued the derivations count."""
    with machine.daemon():
        paths = machine.build(*(derivation(f"build-{number}") for number in range(20)))

        machine.narpost("wait")

        assert machine.posted() == set(paths)


def test_a_wait_for_a_result_link_waits_for_what_it_leads_to(machine: Machine) -> None:
    """`./result` names the path."""
    with machine.daemon():
        machine.run("nix-build", "--expr", derivation("linked"))

        machine.narpost("wait", "./result")

        assert machine.posted() == {str((machine.folder / "result").readlink())}


def test_a_wait_for_a_derivation_waits_for_its_outputs(machine: Machine) -> None:
    """A `.drv` stands for what it makes, as it does for push."""
    with machine.daemon():
        (path,) = machine.build(derivation("made"))
        (deriver,) = machine.run("nix-store", "--query", "--deriver", path).stdout.split()

        machine.narpost("wait", deriver)

        assert machine.posted() == {path}


def test_a_wait_for_nothing_ends_at_once(machine: Machine) -> None:
    """An empty queue is no reason to wait, nor to complain that no daemon works."""
    done = machine.narpost("wait")

    assert (done.returncode, done.stderr) == (0, "")


def test_a_wait_before_the_queue_was_ever_used_ends_at_once(machine: Machine) -> None:
    """Where there is no queue folder yet, nothing is queued."""
    machine.queue.rmdir()

    assert machine.narpost("wait", check=False).returncode == 0


def test_a_wait_whose_time_is_up_names_what_still_waits(machine: Machine) -> None:
    """With no daemon: a warning that says so, a line for the path, and exit code 1."""
    path = machine.add("note", "waits")
    (machine.queue / Path(path).name).symlink_to(path)

    done = machine.narpost("wait", "--timeout", "0.1s", path, check=False)

    assert done.returncode == 1
    warning, line = done.stderr.splitlines()
    assert warning.startswith("warning: no daemon works on this queue")
    assert line.startswith(f"not posted: {Path(path).name}: time is up")


def test_a_wait_for_a_queued_derivation_ends_when_its_time_is_up(machine: Machine) -> None:
    """A derivation whose outputs nobody asks for does not make wait forget its time-out."""
    machine.build(derivation("made"))

    done = machine.narpost("wait", "--timeout", "0.1s", check=False)

    assert done.returncode == 1
    assert "-made: time is up" in done.stderr


def test_a_wait_beside_a_refused_derivation_comes_to_its_end(machine: Machine) -> None:
    """A derivation that was set aside is named as not posted, and holds no wait up."""
    gone = machine.store.store_dir / "0000000000000000000000000000000a-gone.drv"
    (machine.queue / gone.name).symlink_to(gone)

    with machine.daemon() as daemon:
        machine.wait_until(lambda: any("set aside" in line for line in daemon.log()), "it is")
        done = machine.narpost("wait", "--timeout", "5s", check=False)

    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"not posted: {gone.name}: ")


def test_a_wait_names_a_path_that_cannot_be_posted(machine: Machine) -> None:
    """Exit code 1 and one line for the changed path; its neighbours are posted."""
    bad = derivation("bad", "echo good > $out")
    paths = machine.build(bad, *(derivation(f"good-{number}") for number in range(5)))
    machine.flip_a_byte(paths[0])

    with machine.daemon():
        done = machine.narpost("wait", check=False)

    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"not posted: {Path(paths[0]).name}: ")
    assert machine.posted() == set(paths[1:])


def test_a_wait_for_what_was_never_queued_says_so(machine: Machine) -> None:
    """A path that nobody queued is not taken for posted."""
    path = machine.add("note", "never queued")

    with machine.daemon():
        done = machine.narpost("wait", path, check=False)

    assert done.returncode == 1
    assert done.stderr.startswith(f"not posted: {Path(path).name}: it is not queued")

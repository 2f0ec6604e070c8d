"""`narpost daemon` as a process: how it ends, and that there is one."""

import shutil

from support.machine import Machine, large
from support.private_store import derivation


def test_a_daemon_told_to_stop_leaves_nothing_half_done(machine: Machine) -> None:
    """On SIGTERM in mid-work each path is either posted and settled, or queued as before."""
    machine.configure(machine.cache_section("?compression=xz&compression-level=0"))
    small = [derivation(f"small-{number}") for number in range(20)]
    paths = machine.build(*small, *(large(f"large-{number}") for number in range(4)))

    with machine.daemon() as daemon:
        machine.wait_until(lambda: bool(daemon.posted() and machine.packed_files()), "it works")
        code = daemon.stop()

    assert code == 0
    assert sorted([*machine.posted(), *machine.queued()]) == sorted(paths)
    assert machine.packed_files() == []
    machine.assert_cache_keeps_its_promise()


def test_a_daemon_that_was_stopped_leaves_the_rest_queued(machine: Machine) -> None:
    """What is built after the daemon ended waits for the next one."""
    with machine.daemon():
        (first,) = machine.build(derivation("first"))
        machine.wait_until_nothing_is_queued()
    (second,) = machine.build(derivation("second"))

    assert machine.posted() == {first}
    assert second in machine.queued()


def test_a_drain_ends_when_nothing_is_left_to_do(machine: Machine) -> None:
    """It tells what it posted, and a second one posts nothing."""
    machine.build(derivation("only"))

    first = machine.narpost("daemon", "--drain")
    second = machine.narpost("daemon", "--drain")

    assert len(first.stderr.splitlines()) == 1
    assert second.stderr == ""


def test_a_second_daemon_on_the_same_queue_is_refused(machine: Machine) -> None:
    """It says so in one sentence with a hint, exits with 2, and the first one works on."""
    with machine.daemon():
        second = machine.narpost("daemon", check=False)
        (after,) = machine.build(derivation("after"))
        machine.wait_until_nothing_is_queued()

    assert second.returncode == 2
    error, hint = second.stderr.splitlines()
    assert error == f"error: another narpost daemon works on the queue {machine.directory}"
    assert hint.startswith("hint: ")
    assert machine.posted() == {after}


def test_a_daemon_that_was_killed_leaves_no_lock_behind(machine: Machine) -> None:
    """After `kill -9` the next daemon starts as if nothing had been."""
    with machine.daemon() as daemon:
        daemon.kill()
    (path,) = machine.build(derivation("later"))

    machine.narpost("daemon", "--drain")

    assert machine.posted() == {path}


def test_what_does_not_belong_in_the_queue_folder_is_told_and_left(machine: Machine) -> None:
    """A file and a link to elsewhere stay where they are, and hold nothing up."""
    (machine.queue / "note").write_text("not a link")
    (machine.queue / "elsewhere").symlink_to("/etc/passwd")
    (path,) = machine.build(derivation("beside"))

    done = machine.narpost("daemon", "--drain")

    assert machine.posted() == {path}
    assert {link.name for link in machine.queue.iterdir()} == {"note", "elsewhere"}
    ignored = [line for line in done.stderr.splitlines() if line.startswith("ignored")]
    assert len(ignored) == 2


def test_all_outputs_of_a_derivation_are_posted(machine: Machine) -> None:
    """Of three outputs only one was wanted, and all three are posted."""
    several = derivation(
        "several",
        "mkdir $out $dev $doc; echo $dev > $out/link",
        attributes='outputs = [ "out" "dev" "doc" ];',
    )
    (wanted,) = machine.build(f"({several}).doc")
    (deriver,) = machine.run("nix-store", "--query", "--deriver", wanted).stdout.split()
    outputs = machine.run("nix-store", "--query", "--outputs", deriver).stdout.split()

    machine.narpost("daemon", "--drain")

    assert len(outputs) == 3
    assert machine.posted() == set(outputs)
    machine.assert_cache_keeps_its_promise()


def test_a_path_changed_on_disk_is_set_aside_and_its_neighbours_are_posted(
    machine: Machine,
) -> None:
    """One flipped byte: exit code 1, a line that names the path, and nothing of it visible."""
    bad = derivation("bad", "echo good > $out")
    paths = machine.build(bad, *(derivation(f"good-{number}") for number in range(5)))
    machine.flip_a_byte(paths[0])

    done = machine.narpost("daemon", "--drain", check=False)

    assert done.returncode == 1
    assert [line for line in done.stderr.splitlines() if line.startswith("not posted: ")] == [
        line for line in done.stderr.splitlines() if "-bad: " in line and "not posted: " in line
    ]
    assert machine.posted() == set(paths[1:])
    assert machine.queued() == {paths[0]}
    machine.assert_cache_keeps_its_promise()


def test_what_refers_to_a_changed_path_is_set_aside_too(machine: Machine) -> None:
    """A referrer of the changed path is not made visible without it."""
    bad = derivation("bad", "echo good > $out")
    library, program = machine.build(bad, derivation("program", references=[bad]))
    machine.flip_a_byte(library)

    done = machine.narpost("daemon", "--drain", check=False)

    assert done.returncode == 1
    assert machine.posted() == set()
    assert machine.queued() == {library, program}


def test_a_path_that_was_repaired_is_posted_by_the_next_push(machine: Machine) -> None:
    """Setting aside is no last word: once the path is right again, a push posts it."""
    (path,) = machine.build(derivation("bad", "echo good > $out"))
    machine.flip_a_byte(path)
    machine.narpost("daemon", "--drain", check=False)
    machine.flip_a_byte(path)

    machine.narpost("push", path)

    assert machine.posted() == {path}
    assert machine.queued() == set()


def test_two_caches_get_everything(machine: Machine) -> None:
    """With two caches configured, a path is in both before its link goes."""
    machine.configure(
        machine.cache_section(),
        machine.cache_section("?compression=xz", name="second", folder="second"),
    )
    paths = machine.build(*(derivation(f"build-{number}") for number in range(5)))

    machine.narpost("daemon", "--drain")

    assert machine.posted() == machine.posted("second") == set(paths)
    machine.assert_cache_keeps_its_promise()
    machine.assert_cache_keeps_its_promise("second")


def test_a_cache_folder_taken_away_meanwhile_holds_nothing_up(machine: Machine) -> None:
    """A path that was posted before its cache was emptied is posted again when it is pushed."""
    (path,) = machine.build(derivation("twice"))
    machine.narpost("daemon", "--drain")
    shutil.rmtree(machine.cache)

    machine.narpost("push", path)

    assert machine.posted() == {path}
    machine.assert_cache_keeps_its_promise()


def test_a_second_daemon_touches_nothing_of_the_first(machine: Machine) -> None:
    """It is refused before it clears away what seems half done."""
    with machine.daemon():
        half_packed = machine.state / "packed" / "main" / "7.partial"
        half_packed.write_bytes(b"half")

        refused = machine.narpost("daemon", "--drain", check=False)

        assert refused.returncode == 2
        assert "another narpost daemon" in refused.stderr
        assert half_packed.exists()

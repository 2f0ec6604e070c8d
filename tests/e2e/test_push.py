"""`narpost push`: by the daemon where one works, else by itself."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from support.machine import PROGRAM, Machine, base_names, large
from support.private_store import derivation


def build_unqueued(machine: Machine, *expressions: str) -> list[str]:
    """Build, and forget what the hook has queued."""
    paths = machine.build(*expressions)
    for link in machine.queue.iterdir():
        link.unlink()
    return paths


def test_a_push_posts_by_itself_where_no_daemon_works(machine: Machine) -> None:
    """It posts the path with its closure, says so, and leaves no link."""
    library = derivation("library")
    paths = build_unqueued(machine, library, derivation("program", references=[library]))

    done = machine.narpost("push", paths[1])

    assert machine.posted() == set(paths)
    assert machine.queued() == set()
    assert done.stdout.startswith("posted 2 paths: ")
    assert done.stderr == ""


def test_a_push_is_posted_by_the_daemon_that_works(machine: Machine) -> None:
    """Push returns once the daemon has posted the path."""
    path = machine.add("note", "pushed")

    with machine.daemon() as daemon:
        machine.narpost("push", path)
        posted = machine.posted()

    assert posted == {path}
    assert daemon.posted() == base_names([path])


def test_each_of_many_pushes_in_a_row_is_posted_by_the_daemon(machine: Machine) -> None:
    """However soon the daemon is done with a new path, push never takes it for lost."""
    with machine.daemon():
        for number in range(6):
            path = machine.add(f"note-{number}", "pushed")

            machine.narpost("push", path)

            assert path in machine.posted()


def test_a_push_of_what_is_there_already_is_done(machine: Machine) -> None:
    """Pushed twice, a path is posted once."""
    (path,) = build_unqueued(machine, derivation("pushed"))

    machine.narpost("push", path)
    machine.narpost("push", path)

    assert machine.posted() == {path}
    assert machine.postings() == base_names([path])


def test_a_push_follows_a_result_link(machine: Machine) -> None:
    """`./result`, relative to where one stands, stands for what it leads to."""
    machine.run("nix-build", "--expr", derivation("linked"))
    target = str((machine.folder / "result").readlink())

    machine.narpost("push", "./result")

    assert machine.posted() == {target}


def test_a_push_of_a_file_inside_of_a_path_posts_the_path(machine: Machine) -> None:
    """A file inside of a store path stands for the whole path."""
    (path,) = build_unqueued(machine, derivation("folder", "mkdir $out; echo in > $out/file"))

    machine.narpost("push", f"{path}/file")

    assert machine.posted() == {path}


def test_a_push_of_a_derivation_posts_its_outputs(machine: Machine) -> None:
    """A `.drv` stands for all that it makes, and is not posted itself."""
    several = derivation("several", "mkdir $out $dev", attributes='outputs = [ "out" "dev" ];')
    (wanted,) = build_unqueued(machine, f"({several}).dev")
    (deriver,) = machine.run("nix-store", "--query", "--deriver", wanted).stdout.split()
    outputs = machine.run("nix-store", "--query", "--outputs", deriver).stdout.split()

    machine.narpost("push", deriver)

    assert len(outputs) == 2
    assert machine.posted() == set(outputs)


def test_a_push_to_a_url_needs_no_configuration(machine: Machine) -> None:
    """The URL names cache and key; nothing of the push is left in queue or state."""
    machine.config.unlink()
    (path,) = build_unqueued(machine, derivation("pushed"))
    before = set(machine.directory.iterdir())

    machine.narpost("push", "--to", f"file://{machine.cache}?secret-key={machine.secret_key}", path)

    assert machine.posted() == {path}
    assert set(machine.directory.iterdir()) == before
    machine.assert_cache_keeps_its_promise()


def test_a_push_to_a_url_works_beside_the_daemon(machine: Machine) -> None:
    """The daemon goes on with its own cache, and the path goes only where it was sent."""
    path = machine.add("note", "pushed")

    with machine.daemon():
        elsewhere = f"file://{machine.folder / 'other'}?secret-key={machine.secret_key}"

        machine.narpost("push", "--to", elsewhere, path)

    assert machine.posted("other") == {path}
    assert machine.posted() == set()
    machine.assert_cache_keeps_its_promise("other")


def test_a_push_to_a_url_clears_what_a_killed_one_has_left(machine: Machine) -> None:
    """Its private queue would keep its paths from garbage collection for ever."""
    path = machine.add("note", "pushed")
    abandoned = machine.directory / "to-4194305" / "queue"  # No process has so high a number.
    abandoned.mkdir(parents=True)
    (abandoned / Path(path).name).symlink_to(path)

    machine.narpost("push", "--to", f"file://{machine.cache}?secret-key={machine.secret_key}", path)

    assert not abandoned.parent.exists()


def test_pushes_at_once_without_a_daemon_are_all_posted(machine: Machine) -> None:
    """Five pushes in parallel, of five paths: each ends well, and each path is there."""
    paths = build_unqueued(machine, *(derivation(f"build-{number}") for number in range(5)))

    with ThreadPoolExecutor(5) as pool:
        ends = list(pool.map(lambda path: machine.narpost("push", path, check=False), paths))

    assert [(end.returncode, end.stderr) for end in ends] == [(0, "")] * 5
    assert machine.posted() == set(paths)


def test_a_push_beside_one_that_ends_first_is_posted(machine: Machine) -> None:
    """A push that found another at work does not wait for ever once that one has ended."""
    machine.configure(machine.cache_section("?compression=xz&compression-level=0"))
    paths = build_unqueued(machine, large("first"), large("second", 10_000_000))

    with machine.starting(PROGRAM, "push", paths[0]):
        machine.wait_until(machine.is_held, "the first push is at work")
        machine.narpost("push", paths[1])

    assert paths[1] in machine.posted()
    machine.assert_cache_keeps_its_promise()


def test_a_push_whose_daemon_is_stopped_is_posted(machine: Machine) -> None:
    """When the daemon ends while a push waits for it, push goes on by itself."""
    machine.configure(machine.cache_section("?compression=xz&compression-level=0"))
    (path,) = build_unqueued(machine, large("pushed", 10_000_000))

    with machine.daemon() as daemon, ThreadPoolExecutor(1) as pool:
        push = pool.submit(machine.narpost, "push", path)
        machine.wait_until(lambda: bool(machine.packed_files()), "the daemon works on it")
        daemon.kill()
        push.result()

    assert machine.posted() == {path}


def test_a_push_of_a_changed_path_fails_and_posts_the_others(machine: Machine) -> None:
    """Exit code 1, one line that names the path, and its neighbour is there."""
    bad, good = build_unqueued(
        machine, derivation("bad", "echo good > $out"), derivation("good", "echo good > $out")
    )
    machine.flip_a_byte(bad)

    done = machine.narpost("push", bad, good, check=False)

    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"not posted: {Path(bad).name}: ")
    assert machine.posted() == {good}


def test_a_push_of_a_changed_path_fails_by_the_daemon_too(machine: Machine) -> None:
    """The daemon's verdict is told by push: exit code 1, and one line that names the path."""
    bad = machine.add("bad", "good")
    machine.flip_a_byte(bad)

    with machine.daemon():
        done = machine.narpost("push", bad, check=False)

    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"not posted: {Path(bad).name}: ")


def test_a_push_of_nothing_is_done(machine: Machine) -> None:
    """No PATH, as from an empty list in a script, is no error."""
    assert machine.narpost("push").returncode == 0

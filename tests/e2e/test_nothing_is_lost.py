"""What is queued stays queued, and is posted in the end, whatever happens meanwhile."""

import shutil

from support.machine import Machine, base_names, large
from support.private_store import derivation

FIFTY = [derivation(f"build-{number}") for number in range(50)]
TEN = FIFTY[:10]
# Nobody listens on port 1 of the loopback.
UNREACHABLE = """\
[[cache]]
url = "s3://bucket?endpoint=127.0.0.1:1&scheme=http&region=us-east-1"
sign = false
"""
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any"}


def test_fifty_builds_are_posted_when_the_daemon_was_off(machine: Machine) -> None:
    """A daemon that is started after fifty builds posts all of them, and drains the queue."""
    outputs = machine.build(*FIFTY)

    machine.narpost("daemon", "--drain")

    assert len(set(outputs)) == 50
    assert machine.posted() == set(outputs)
    assert machine.queued() == set()
    assert sorted(machine.postings()) == base_names(outputs)
    machine.assert_cache_keeps_its_promise()


def test_garbage_collection_takes_nothing_that_waits(machine: Machine) -> None:
    """Between build and posting, `nix-store --gc` keeps each output with its whole closure."""
    library = derivation("library", "echo code > $out")
    program = derivation("program", references=[library])
    paths = machine.build(library, program, *FIFTY)

    machine.collect_garbage()

    assert machine.lost(paths) == set()
    machine.narpost("daemon", "--drain")
    assert machine.posted() == set(paths)


def test_garbage_collection_takes_all_that_was_posted(machine: Machine) -> None:
    """Once posted, nothing of ours keeps a path, nor its derivation, in the store."""
    paths = machine.build(*FIFTY)
    derivations = machine.run("nix-store", "--query", "--deriver", *paths).stdout.split()
    machine.narpost("daemon", "--drain")

    machine.collect_garbage()

    assert machine.lost([*paths, *derivations]) == {*paths, *derivations}


def test_a_ledger_deleted_before_the_daemon_starts_is_not_missed(machine: Machine) -> None:
    """With ledger and packed files gone, links alone lead to all that waits being posted."""
    machine.configure(UNREACHABLE)
    with machine.daemon(CREDENTIALS) as daemon:
        outputs = machine.build(*TEN)
        machine.wait_until(lambda: bool(daemon.log()), "the cache was tried")
    queued_after_the_try = machine.queued()

    shutil.rmtree(machine.state)
    machine.configure(machine.cache_section())
    machine.narpost("daemon", "--drain")

    assert queued_after_the_try >= set(outputs)
    assert machine.posted() == set(outputs)
    assert machine.queued() == set()


def test_a_ledger_deleted_while_the_daemon_works_is_not_missed(machine: Machine) -> None:
    """What is queued before and after the ledger is deleted is posted, and remembered anew."""
    with machine.daemon():
        before = machine.build(derivation("before"))
        machine.wait_until_nothing_is_queued()
        for file in machine.state.glob("ledger*"):
            file.unlink()
        after = machine.build(*TEN)
        machine.wait_until_nothing_is_queued()

    assert machine.posted() == {*before, *after}
    assert set(machine.postings()) >= set(base_names(after))


def test_a_state_folder_deleted_while_the_daemon_works_is_not_missed(machine: Machine) -> None:
    """A large path, which is packed to a file in that folder, is posted all the same."""
    with machine.daemon():
        machine.build(derivation("before"))
        machine.wait_until_nothing_is_queued()
        shutil.rmtree(machine.state)
        (after,) = machine.build(large("after"))
        machine.wait_until_nothing_is_queued()

    assert after in machine.posted()
    machine.assert_cache_keeps_its_promise()


def test_a_queue_folder_deleted_while_the_daemon_works_is_made_again(machine: Machine) -> None:
    """The hook finds it for the next build, and the daemon hears of that one."""
    with machine.daemon():
        machine.build(derivation("before"))
        machine.wait_until_nothing_is_queued()
        shutil.rmtree(machine.queue)
        machine.wait_until(machine.queue.is_dir, "the queue folder is there again")
        (after,) = machine.build(derivation("after"))
        machine.wait_until(lambda: after in machine.posted(), "the next build is posted")

    machine.assert_cache_keeps_its_promise()


def test_a_ledger_of_another_kind_is_put_out_of_the_way(machine: Machine) -> None:
    """A file that is no database becomes `ledger.corrupt`, and all that waits is posted."""
    outputs = machine.build(*TEN)
    machine.state.mkdir()
    machine.ledger.write_text("this is no database\n" * 1000)

    machine.narpost("daemon", "--drain")

    assert machine.posted() == set(outputs)
    assert machine.ledger.with_suffix(".corrupt").read_text().startswith("this is no database")


def test_a_cache_taken_out_of_the_configuration_holds_nothing_up(machine: Machine) -> None:
    """What only an unreachable cache still lacked is settled once that cache is not wanted."""
    machine.configure(machine.cache_section(), f'{UNREACHABLE}name = "away"\n')
    with machine.daemon(CREDENTIALS):
        outputs = machine.build(*TEN)
        machine.wait_until(lambda: machine.posted() == set(outputs), "the first cache has all")
    queued_for_the_other = machine.queued()

    machine.configure(machine.cache_section())
    machine.narpost("daemon", "--drain")

    assert queued_for_the_other >= set(outputs)
    assert machine.posted() == set(outputs)
    assert machine.queued() == set()


def test_a_daemon_killed_again_and_again_posts_everything(machine: Machine) -> None:
    """After each `kill -9` in mid-work the cache keeps its promise; in the end all is there."""
    machine.configure(machine.cache_section("?compression=xz&compression-level=0"))
    library = large("library")
    small = [derivation(f"small-{number}", references=[library]) for number in range(40)]
    huge = [large(f"large-{number}") for number in range(4)]
    paths = machine.build(library, *small, *huge)

    for is_in_mid_work in (
        lambda: bool(machine.packed_files()),
        lambda: len(machine.posted()) >= 1,
        lambda: len(machine.posted()) >= 5 and bool(machine.packed_files()),
    ):
        with machine.daemon() as daemon:
            machine.wait_until(is_in_mid_work, "it is in mid-work")
            daemon.kill()
        machine.assert_cache_keeps_its_promise()
        assert machine.queued() | machine.posted() >= set(paths)
        assert machine.queued() != set()
    machine.narpost("daemon", "--drain")

    assert machine.posted() == set(paths)
    assert machine.queued() == set()
    assert machine.packed_files() == []
    machine.assert_cache_keeps_its_promise()


def test_garbage_collection_during_the_work_takes_nothing_that_waits(machine: Machine) -> None:
    """`nix-store --gc`, run while the daemon posts, loses no path that is not yet posted."""
    paths = machine.build(*TEN, *(large(f"large-{number}") for number in range(3)))

    with machine.daemon():
        machine.collect_garbage()
        machine.wait_until_nothing_is_queued()

    assert machine.posted() == set(paths)
    machine.assert_cache_keeps_its_promise()

"""Many builds at the same time, with the hook on and the daemon at work."""

from support.machine import Machine, base_names
from support.private_store import derivation

COMMON = derivation("common", "echo shared by all > $out")
TWENTY = [derivation(f"build-{number}", references=[COMMON]) for number in range(20)]


def test_twenty_builds_at_once_are_each_posted_once(machine: Machine) -> None:
    """Twenty nix-builds in parallel: each output, and what all need, is posted once."""
    with machine.daemon() as daemon:
        outputs = machine.build_at_once(*TWENTY)
        machine.wait_until_nothing_is_queued()
    (common,) = machine.build(COMMON)

    assert len(outputs) == len(set(outputs)) == 20
    assert machine.posted() == {common, *outputs}
    assert sorted(daemon.posted()) == base_names([common, *outputs])
    assert sorted(machine.postings()) == base_names([common, *outputs])
    machine.assert_cache_keeps_its_promise()


def test_twenty_builds_come_back_from_the_cache(machine: Machine) -> None:
    """A client that trusts only our key substitutes all of them after they were deleted."""
    with machine.daemon():
        outputs = machine.build_at_once(*TWENTY)
        machine.wait_until_nothing_is_queued()
    everything = [*outputs, *machine.build(COMMON)]

    machine.fetch_back(everything)

    assert machine.lost(everything) == set()

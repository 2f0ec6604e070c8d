"""The queue: the folder of links, and how each entry stands with each cache."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from narpost.errors import NarpostError, Passing, PathCorrupt
from narpost.events import Confirmed, Event, Ignored, PutAside, Queued, Renewed, Retrying, Settled
from narpost.nix.store_path import StorePath
from narpost.queue.ledger import FILE, Ledger
from narpost.queue.queue import Queue
from narpost.queue.spool import Spool
from support.fake_store import STORE_DIR, store_path

HELLO, WORLD, DERIVATION = map(store_path, ("hello", "world", "hello.drv"))
ALL = 100
DOWN = Passing("the cache is down")
CORRUPT = PathCorrupt("it is corrupt")


@dataclass
class Desk:
    """A queue in a scratch folder, its clock, and what it tells; it can be closed and reopened."""

    folder: Path
    now: float = 1000.0
    events: list[Event] = field(default_factory=list)
    open_ledgers: list[Ledger] = field(default_factory=list)

    @property
    def spool(self) -> Spool:
        """The folder of links."""
        return Spool(self.folder, STORE_DIR)

    def open(self, *caches: str) -> Queue:
        """A queue for *caches*, as a daemon opens it at its start."""
        for ledger in self.open_ledgers:
            ledger.close()
        self.spool.prepare(self.folder)
        ledger = Ledger(self.folder)
        self.open_ledgers.append(ledger)
        return Queue(self.spool, ledger, caches, clock=lambda: self.now, emit=self.events.append)

    def open_with(self, *paths: StorePath, caches: tuple[str, ...] = ("main",)) -> Queue:
        """A queue that has looked at a folder with *paths* in it."""
        queue = self.open(*caches)
        self.spool.add(paths)
        queue.look()
        return queue


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """An empty queue."""
    desk = Desk(tmp_path)
    yield desk
    for ledger in desk.open_ledgers:
        ledger.close()


def fail(queue: Queue, path: StorePath, seconds: float, cache: str = "main") -> None:
    """Take *path* in hand, and have it fail."""
    assert path in queue.claim(cache, ALL)
    queue.postpone(cache, path, DOWN, seconds)


def set_age(link: Path, when: float) -> None:
    """Give a link the time *when*."""
    os.utime(link, (when, when), follow_symlinks=False)


def test_what_lies_in_the_folder_is_due_at_once(desk: Desk) -> None:
    """Entries are told when they are first seen, and claimed once."""
    queue = desk.open_with(HELLO, WORLD)

    claimed = queue.claim("main", ALL)

    assert set(claimed) == {HELLO, WORLD}
    assert queue.claim("main", ALL) == []
    assert set(desk.events) == {Queued(HELLO.base_name), Queued(WORLD.base_name)}


def test_a_second_look_tells_nothing_twice(desk: Desk) -> None:
    """An entry that is known is not queued again."""
    queue = desk.open_with(HELLO)
    queue.claim("main", ALL)

    queue.look()

    assert desk.events == [Queued(HELLO.base_name)]
    assert queue.claim("main", ALL) == []


def test_a_claim_has_a_limit(desk: Desk) -> None:
    """What is beyond it stays for the next claim."""
    queue = desk.open_with(*(store_path(f"path-{number}") for number in range(5)))

    claims = [queue.claim("main", 2) for _ in range(4)]

    assert [len(claim) for claim in claims] == [2, 2, 1, 0]
    assert len({path for claim in claims for path in claim}) == 5


def test_the_link_goes_when_the_cache_confirms(desk: Desk) -> None:
    """Not when it is claimed; and those who wait learn that it settled."""
    queue = desk.open_with(HELLO)
    queue.claim("main", ALL)
    was_held = desk.spool.holds(HELLO)

    queue.confirm("main", HELLO)
    queue.save()

    assert was_held
    assert not desk.spool.holds(HELLO)
    assert queue.ledger.has_settled(HELLO)
    assert desk.events[-1] == Settled(HELLO.base_name)
    assert queue.left() == {}


def test_the_link_goes_only_when_both_caches_have_confirmed(desk: Desk) -> None:
    """Each cache goes at its own pace, and the slower one is waited for."""
    queue = desk.open_with(HELLO, caches=("fast", "slow"))
    queue.claim("fast", ALL)
    queue.confirm("fast", HELLO)
    is_held_between = desk.spool.holds(HELLO)
    fail(queue, HELLO, 0, "slow")
    is_held_after_a_failure = desk.spool.holds(HELLO)

    queue.claim("slow", ALL)
    queue.confirm("slow", HELLO)
    queue.save()

    assert is_held_between
    assert is_held_after_a_failure
    assert not desk.spool.holds(HELLO)
    assert desk.events.count(Settled(HELLO.base_name)) == 1


def test_what_one_cache_sets_aside_the_other_still_gets(desk: Desk) -> None:
    """The link stays for the person who decides."""
    queue = desk.open_with(HELLO, caches=("picky", "other"))
    queue.claim("picky", ALL)
    queue.set_aside("picky", HELLO, CORRUPT)

    claimed = queue.claim("other", ALL)
    queue.confirm("other", HELLO)

    assert claimed == [HELLO]
    assert desk.spool.holds(HELLO)
    assert queue.left() == {HELLO: "it is corrupt"}


def test_what_is_postponed_is_due_after_its_time(desk: Desk) -> None:
    """Not before, and not late by more than a look at the clock."""
    queue = desk.open_with(HELLO)
    fail(queue, HELLO, 30)
    early = queue.claim("main", ALL)
    due_in = queue.next_due_in("main")

    desk.now += 30
    late = queue.claim("main", ALL)

    assert early == []
    assert due_in == 30
    assert late == [HELLO]
    assert desk.events[-1] == Retrying("main", HELLO.base_name, "the cache is down", 30)


def test_what_is_due_first_is_first(desk: Desk) -> None:
    """By time, not by name nor by the order of failing."""
    queue = desk.open_with(HELLO, WORLD)
    queue.claim("main", ALL)
    queue.postpone("main", HELLO, DOWN, 20)
    queue.postpone("main", WORLD, DOWN, 10)
    first = queue.next_due_in("main")

    desk.now += 60

    assert first == 10
    assert queue.claim("main", ALL) == [WORLD, HELLO]


def test_each_failure_counts_as_a_try(desk: Desk) -> None:
    """Per path and per cache."""
    queue = desk.open_with(HELLO, WORLD, caches=("main", "other"))

    for _ in range(3):
        queue.claim("main", ALL)
        queue.postpone("main", HELLO, DOWN, 0)

    assert queue.tries("main", HELLO) == 3
    assert queue.tries("other", HELLO) == 0
    assert queue.tries("main", WORLD) == 0


def test_what_is_set_aside_is_not_tried_again(desk: Desk) -> None:
    """However long it lies there."""
    queue = desk.open_with(HELLO)
    queue.claim("main", ALL)

    queue.set_aside("main", HELLO, CORRUPT)
    desk.now += 10**9

    assert queue.claim("main", ALL) == []
    assert not queue.has_work(tries_limit=ALL)
    assert desk.spool.holds(HELLO)
    assert desk.events[-1] == PutAside("main", HELLO.base_name, "it is corrupt")


@pytest.mark.parametrize("end", ["confirm", "postpone", "set_aside"])
def test_an_entry_taken_out_while_in_hand_has_no_end(desk: Desk, end: str) -> None:
    """Somebody dropped it meanwhile: its verdict is passed over, and it does not come back."""
    queue = desk.open_with(HELLO, WORLD)
    queue.claim("main", ALL)
    desk.spool.remove(HELLO)
    queue.look()
    told = list(desk.events)

    match end:
        case "confirm":
            queue.confirm("main", HELLO)
        case "postpone":
            queue.postpone("main", HELLO, DOWN, 1)
        case _:
            queue.set_aside("main", HELLO, CORRUPT)
    desk.now += 60

    assert desk.events == told
    assert queue.left() == {WORLD: ""}
    assert queue.claim("main", ALL) == []
    assert not desk.spool.holds(HELLO)


def test_an_entry_taken_out_and_queued_again_is_new(desk: Desk) -> None:
    """A verdict from before does not settle it: it is posted once more."""
    queue = desk.open_with(HELLO)
    queue.claim("main", ALL)
    desk.spool.remove(HELLO)
    queue.look()
    desk.spool.add([HELLO])
    queue.look()

    queue.confirm("main", HELLO)

    assert desk.spool.holds(HELLO)
    assert queue.claim("main", ALL) == [HELLO]


def test_remembers_tries_and_times_after_reopening(desk: Desk) -> None:
    """A restart neither forgives nor hurries."""
    queue = desk.open_with(HELLO)
    fail(queue, HELLO, 0)
    fail(queue, HELLO, 50)

    queue = desk.open_with(HELLO)
    early = queue.claim("main", ALL)
    tries = queue.tries("main", HELLO)
    desk.now += 50

    assert early == []
    assert tries == 2
    assert queue.claim("main", ALL) == [HELLO]


def test_remembers_what_was_set_aside_after_reopening(desk: Desk) -> None:
    """With its reason."""
    queue = desk.open_with(HELLO)
    queue.claim("main", ALL)
    queue.set_aside("main", HELLO, CORRUPT)

    queue = desk.open_with(HELLO)

    assert queue.claim("main", ALL) == []
    assert queue.left() == {HELLO: "it is corrupt"}


def test_remembers_which_cache_has_confirmed_after_reopening(desk: Desk) -> None:
    """Only the other one is still to be served."""
    queue = desk.open_with(HELLO, caches=("main", "other"))
    queue.claim("main", ALL)
    queue.confirm("main", HELLO)

    queue = desk.open_with(HELLO, caches=("main", "other"))

    assert queue.claim("main", ALL) == []
    assert queue.claim("other", ALL) == [HELLO]


def test_what_was_in_hand_is_due_after_reopening(desk: Desk) -> None:
    """A daemon that was killed in the midst of it takes it up again."""
    queue = desk.open_with(HELLO)
    queue.claim("main", ALL)

    queue = desk.open_with(HELLO)

    assert queue.claim("main", ALL) == [HELLO]


def test_the_folder_alone_brings_the_queue_back(desk: Desk) -> None:
    """Without its ledger everything that is queued is due, as if it had not been tried."""
    queue = desk.open_with(HELLO, WORLD)
    fail(queue, HELLO, 500)
    queue.ledger.close()
    (desk.folder / FILE).unlink()

    queue = desk.open_with()

    assert set(queue.claim("main", ALL)) == {HELLO, WORLD}
    assert queue.tries("main", HELLO) == 0


def test_an_entry_that_every_cache_left_has_settles_at_once(desk: Desk) -> None:
    """The cache it still waited for was taken out of the configuration."""
    queue = desk.open_with(HELLO, caches=("main", "gone"))
    queue.claim("main", ALL)
    queue.confirm("main", HELLO)

    queue = desk.open_with(HELLO, caches=("main",))
    queue.save()

    assert queue.left() == {}
    assert not desk.spool.holds(HELLO)


def test_what_left_the_folder_while_closed_is_forgotten(desk: Desk) -> None:
    """A path that was dropped, and is built and queued again, is new: it is tried."""
    queue = desk.open_with(HELLO)
    queue.claim("main", ALL)
    queue.set_aside("main", HELLO, CORRUPT)
    desk.spool.remove(HELLO)
    queue = desk.open("main")
    queue.look()

    desk.spool.add([HELLO])
    queue.look()

    assert queue.claim("main", ALL) == [HELLO]


def test_hurry_makes_what_was_postponed_due(desk: Desk) -> None:
    """As if it had not been tried; what is aside or in hand stays where it is."""
    aside, in_hand = store_path("aside"), store_path("in-hand")
    queue = desk.open_with(HELLO, aside, in_hand)
    queue.claim("main", ALL)
    queue.postpone("main", HELLO, DOWN, 500)
    queue.set_aside("main", aside, CORRUPT)

    queue.hurry()

    assert queue.tries("main", HELLO) == 0
    assert queue.claim("main", ALL) == [HELLO]


def test_what_fails_again_after_a_hurry_waits_its_new_time(desk: Desk) -> None:
    """The time from before the hurry does not wake it early."""
    queue = desk.open_with(HELLO)
    fail(queue, HELLO, 10)
    queue.hurry()
    fail(queue, HELLO, 500)

    desk.now += 20

    assert queue.claim("main", ALL) == []
    desk.now += 480
    assert queue.claim("main", ALL) == [HELLO]


def test_there_is_work_until_all_is_confirmed(desk: Desk) -> None:
    """What waits is work, and so is what is in hand."""
    queue = desk.open_with(HELLO)
    waiting = queue.has_work(tries_limit=1)
    queue.claim("main", ALL)
    in_hand = queue.has_work(tries_limit=1)

    queue.confirm("main", HELLO)

    assert waiting
    assert in_hand
    assert not queue.has_work(tries_limit=1)


def test_what_failed_too_often_is_no_work(desk: Desk) -> None:
    """A drain gives up on it, and it stays queued with its reason."""
    queue = desk.open_with(HELLO)
    fail(queue, HELLO, 0)

    assert queue.has_work(tries_limit=2)
    assert not queue.has_work(tries_limit=1)
    assert queue.left() == {HELLO: "the cache is down"}


def test_looks_at_some_paths_only(desk: Desk) -> None:
    """Who waits for a path is not kept by another."""
    queue = desk.open_with(HELLO, WORLD)
    queue.claim("main", ALL)

    queue.confirm("main", HELLO)

    assert not queue.has_work(ALL, only={HELLO})
    assert queue.has_work(ALL, only={WORLD})
    assert queue.left(only={HELLO}) == {}
    assert queue.left(only={WORLD}) == {WORLD: ""}


def test_a_derivation_gives_way_to_its_outputs(desk: Desk) -> None:
    """Outputs are queued before the derivation lets go, so that nothing is unkept between."""
    queue = desk.open("main")
    desk.spool.add([DERIVATION])
    derivations = queue.look()
    left = queue.left()

    queue.replace_derivation(DERIVATION, [HELLO, WORLD])
    again = queue.look()

    assert derivations == [DERIVATION]
    assert left.keys() == {DERIVATION}
    assert again == []
    assert not desk.spool.holds(DERIVATION)
    assert set(queue.claim("main", ALL)) == {HELLO, WORLD}


def test_a_derivation_is_wanted_until_its_outputs_are_known(desk: Desk) -> None:
    """Each look names it, and nothing posts it."""
    queue = desk.open_with(DERIVATION)

    assert queue.look() == [DERIVATION]
    assert queue.claim("main", ALL) == []


def test_a_derivation_that_nix_refuses_is_set_aside(desk: Desk) -> None:
    """For every cache, with the reason, and nobody asks for it again."""
    queue = desk.open_with(DERIVATION, caches=("main", "other"))

    queue.refuse_derivation(DERIVATION, "Nix says: no such derivation")

    assert queue.look() == []
    assert queue.left() == {DERIVATION: "Nix says: no such derivation"}
    assert not queue.has_work(ALL)
    assert {event.cache for event in desk.events if isinstance(event, PutAside)} == {
        "main",
        "other",
    }


def test_a_stray_is_told_once_for_as_long_as_it_lies_there(desk: Desk) -> None:
    """And again when it comes back."""
    stray = desk.folder / "queue" / "notes.txt"
    queue = desk.open_with()
    stray.touch()
    queue.look()
    queue.look()
    told_first = len(desk.events)
    stray.unlink()
    queue.look()

    stray.touch()
    queue.look()

    assert told_first == 1
    assert desk.events == [Ignored("notes.txt", "it is not a link")] * 2


def test_a_verdict_on_what_was_never_queued_is_passed_over(desk: Desk) -> None:
    """It makes no entry."""
    queue = desk.open_with()

    queue.confirm("main", HELLO)
    queue.postpone("main", HELLO, DOWN, 1)
    queue.set_aside("main", HELLO, CORRUPT)

    assert queue.left() == {}
    assert desk.events == []


def test_the_oldest_entry_is_first(desk: Desk) -> None:
    """What was queued first is posted first, whatever it is called."""
    paths = sorted(store_path(f"path-{number}") for number in range(6))
    queue = desk.open("main")
    desk.spool.add(paths)
    ages = dict(zip(paths, (30, 10, 50, 20, 60, 40), strict=True))
    for path, age in ages.items():
        set_age(desk.folder / "queue" / path.base_name, desk.now - age)

    queue.look()

    assert queue.claim("main", ALL) == sorted(paths, key=lambda path: -ages[path])


def test_an_error_is_kept_by_its_message(desk: Desk) -> None:
    """The reason that a person is shown is the sentence alone."""
    queue = desk.open_with(HELLO)
    queue.claim("main", ALL)

    queue.postpone("main", HELLO, NarpostError("it failed", "mend it"), 1)

    assert queue.left() == {HELLO: "it failed"}


def test_a_clock_that_was_set_back_holds_nothing_up(desk: Desk) -> None:
    """What was to be tried in half a minute is not put off by a day."""
    queue = desk.open_with(HELLO)
    fail(queue, HELLO, 30)

    desk.now -= 86400

    assert queue.next_due_in("main") == 0
    assert queue.claim("main", ALL) == [HELLO]


def test_what_is_put_back_keeps_its_tries_and_is_due(desk: Desk) -> None:
    """It was the cache that failed, and no fault of the path."""
    queue = desk.open_with(HELLO)
    queue.claim("main", ALL)

    queue.put_back("main", HELLO, DOWN)

    assert queue.tries("main", HELLO) == 0
    assert queue.left() == {HELLO: DOWN.message}
    assert queue.claim("main", ALL) == [HELLO]


def test_a_link_made_anew_makes_what_was_postponed_due(desk: Desk) -> None:
    """Somebody queued it once more, and does not want to wait for the next try."""
    queue = desk.open_with(HELLO)
    fail(queue, HELLO, 30)

    desk.spool.renew(HELLO)
    queue.look()

    assert queue.claim("main", ALL) == [HELLO]
    assert Renewed(HELLO.base_name) in desk.events


def test_a_confirmation_is_told_also_where_another_cache_never_will(desk: Desk) -> None:
    """Else who waits for the last of them would wait for ever."""
    queue = desk.open_with(HELLO, caches=("main", "other"))
    queue.claim("main", ALL)
    queue.claim("other", ALL)
    queue.set_aside("other", HELLO, CORRUPT)

    queue.confirm("main", HELLO)

    assert Confirmed("main", HELLO.base_name) in desk.events
    assert not queue.has_work(tries_limit=4)


def test_an_entry_that_was_dropped_is_not_taken_for_renewed(desk: Desk) -> None:
    """Its link is gone, which is nobody's wish to try it again."""
    queue = desk.open_with(HELLO)
    fail(queue, HELLO, 30)

    desk.spool.remove(HELLO)
    queue.look()

    assert Renewed(HELLO.base_name) not in desk.events
    assert queue.depth() == 0

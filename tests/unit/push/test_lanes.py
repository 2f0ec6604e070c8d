"""Lanes: a few tasks that work off what is put in, a batch at a time."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from narpost.push.lanes import Lanes, up_to

# Of the event loop: far more than anything here takes; what is not worked off by then never is.
TURNS = 300


@dataclass(slots=True)
class Workers:
    """Work that takes some turns of the loop, and what was worked off by it."""

    turns: Sequence[int] = (0,)
    batches: list[list[int]] = field(default_factory=list)
    at_once: list[int] = field(default_factory=list)
    at_work: int = 0

    async def work(self, batch: list[int]) -> None:
        """Take as many turns as the first of the batch is to take."""
        self.batches.append(batch)
        self.at_work += 1
        self.at_once.append(self.at_work)
        await pause(self.turns[batch[0] % len(self.turns)])
        self.at_work -= 1

    def taken(self) -> list[int]:
        """All that was taken, in order."""
        return [item for batch in self.batches for item in batch]


async def pause(turns: int) -> None:
    """Let all others go on for some turns."""
    for _ in range(turns):
        await asyncio.sleep(0)


def run(job: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run *job*, and then whatever it leaves, for as many turns as could matter."""

    async def with_time_after() -> None:
        await job()
        await pause(TURNS)

    asyncio.run(with_time_after())


turns = st.lists(st.integers(0, 4), min_size=1, max_size=5)


@given(st.integers(1, 4), st.integers(1, 4), turns, st.lists(st.integers(0, 3), max_size=20))
def test_works_off_each_item_once_and_in_order(
    count: int, limit: int, work: list[int], pauses: list[int]
) -> None:
    """However many lanes there are, however long a batch takes, whenever an item is put in."""
    workers = Workers(work)

    async def put_all() -> None:
        lanes = Lanes(count, up_to(limit), workers.work)
        for item, turns_after in enumerate(pauses):
            lanes.put(item)
            await pause(turns_after)

    run(put_all)

    assert workers.taken() == list(range(len(pauses)))
    assert workers.at_work == 0


@given(st.integers(1, 4), st.integers(1, 4), turns)
def test_has_as_much_under_way_as_lanes_and_batches_allow(
    count: int, limit: int, work: list[int]
) -> None:
    """And no more, however much there is to do."""
    workers = Workers([each + 1 for each in work])

    async def put_all() -> None:
        lanes = Lanes(count, up_to(limit), workers.work)
        for item in range(4 * count * limit):
            lanes.put(item)

    run(put_all)

    assert max(workers.at_once) == count
    assert {len(batch) for batch in workers.batches} == {limit}


def test_a_slow_batch_leaves_the_other_lanes_free() -> None:
    """What comes behind it does not wait for it."""
    slow, fast = 50, 1
    workers = Workers([slow, fast, fast, fast])
    taken_meanwhile: list[int] = []

    async def put_some() -> None:
        lanes = Lanes(2, up_to(1), workers.work)
        for item in range(4):
            lanes.put(item)
        await pause(slow // 2)
        taken_meanwhile.extend(workers.taken())

    run(put_some)

    assert taken_meanwhile == [0, 1, 2, 3]


def test_finished_waits_for_all_that_is_under_way() -> None:
    """Also for what is put in while it waits."""
    workers = Workers([5])
    left_at_the_end: list[int] = []

    async def finish() -> None:
        lanes = Lanes(2, up_to(1), workers.work)
        lanes.put(0)
        await pause(1)
        waiting = asyncio.create_task(lanes.finished())
        await pause(1)
        lanes.put(1)
        await waiting
        left_at_the_end.append(workers.at_work)

    run(finish)

    assert workers.taken() == [0, 1]
    assert left_at_the_end == [0]


def test_what_no_lane_has_taken_is_left_after_a_stop() -> None:
    """What is under way comes to its end."""
    workers = Workers([5])

    async def stop() -> None:
        lanes = Lanes(1, up_to(1), workers.work)
        lanes.put(0)
        lanes.put(1)
        await pause(1)
        lanes.stop()
        await lanes.finished()

    run(stop)

    assert workers.taken() == [0]
    assert workers.at_work == 0


def test_what_is_put_as_the_last_lane_ends_is_worked_off() -> None:
    """A lane that has found nothing more to do takes nothing, so it is a lane no longer."""
    taken: list[str] = []

    async def put_at_the_end() -> None:
        gate = asyncio.Event()

        async def work(batch: list[str]) -> None:
            taken.extend(batch)
            await gate.wait()

        async def put_another() -> None:
            await gate.wait()
            lanes.put("another")

        lanes = Lanes(1, up_to(1), work)
        lanes.put("first")
        await pause(1)
        # It waits behind the lane, so it goes on in the same turn, just after the lane has ended.
        putting = asyncio.create_task(put_another())
        await pause(1)
        gate.set()
        await putting

    run(put_at_the_end)

    assert taken == ["first", "another"]

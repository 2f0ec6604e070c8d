"""Room for packed files: they wait for each other, and nobody waits for ever."""

import asyncio

from narpost.push.room import Room


def held_at_once(limit_bytes: int, *sizes: int) -> list[set[int]]:
    """Which of *sizes* held room together, each time that one came in."""
    held: set[int] = set()
    seen: list[set[int]] = []

    async def hold(room: Room, number: int, size: int) -> None:
        async with room.of(size):
            held.add(number)
            seen.append(set(held))
            for _ in range(5):
                await asyncio.sleep(0)
            held.discard(number)

    async def run() -> None:
        room = Room(limit_bytes)
        async with asyncio.timeout(10):
            await asyncio.gather(*(hold(room, number, size) for number, size in enumerate(sizes)))

    asyncio.run(run())
    return seen


def test_what_fits_comes_in_together() -> None:
    """Up to the bound."""
    assert {0, 1} in held_at_once(10, 4, 6)


def test_what_does_not_fit_waits() -> None:
    """Until another has left."""
    seen = held_at_once(10, 6, 6, 6)

    assert [len(each) for each in seen] == [1, 1, 1]


def test_one_that_is_larger_than_all_room_comes_in_alone() -> None:
    """No path is too large."""
    seen = held_at_once(10, 4, 50, 4)

    assert {1} in seen
    assert not any(1 in each and len(each) > 1 for each in seen)

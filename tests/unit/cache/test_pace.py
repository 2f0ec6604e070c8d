"""Requests and bytes a second: a bound that holds over any time, by a clock of the test's own."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from narpost.cache.pace import Pace


@dataclass
class Clock:
    """Stands still but for those who sleep."""

    now: float = 100.0
    slept: list[float] = field(default_factory=list)

    async def sleep(self, seconds: float) -> None:
        """Time passes."""
        self.slept.append(seconds)
        self.now += seconds


def pace(clock: Clock, requests: float | None = None, size: float | None = None) -> Pace:
    """A pace by *clock*."""
    return Pace(requests, size, clock=lambda: clock.now, sleep=clock.sleep)


def ask(paced: Pace, count: int, body_bytes: int = 0) -> None:
    """Make so many requests, one after another."""

    async def requests() -> None:
        for _ in range(count):
            await paced.request(body_bytes)

    asyncio.run(requests())


def test_requests_keep_their_pace() -> None:
    """The first goes at once, and ten more take as long as ten may take."""
    clock = Clock()

    ask(pace(clock, requests=4), 11)

    assert clock.now == 102.5


def test_bodies_keep_their_pace() -> None:
    """The next waits for what went before it."""
    clock = Clock()

    ask(pace(clock, size=1000), 3, body_bytes=500)

    assert clock.now == 101.0


def test_what_was_not_used_is_not_saved_up() -> None:
    """After a pause only one goes at once."""
    clock = Clock()
    paced = pace(clock, requests=4)
    ask(paced, 1)
    clock.now += 60

    ask(paced, 2)

    assert clock.slept == [0.25]


def test_nothing_bounds_what_has_no_bound() -> None:
    """Without figures nobody waits, and files go as they are."""
    clock = Clock()

    ask(pace(clock), 100, body_bytes=1 << 30)

    assert clock.slept == []
    assert pace(clock).body(Path("/file")) == Path("/file")


def test_a_file_keeps_the_pace_within_itself(tmp_path: Path) -> None:
    """It goes in chunks, byte for byte, and takes its time."""
    clock, file = Clock(), tmp_path / "file"
    file.write_bytes(bytes(range(256)) * 4096)

    async def read() -> bytes:
        body = pace(clock, size=1 << 18).body(file)
        assert isinstance(body, AsyncIterator)
        return b"".join([chunk async for chunk in body])

    body = asyncio.run(read())

    assert body == file.read_bytes()
    assert clock.now == 103.0

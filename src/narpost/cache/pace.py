"""How quickly a bucket is written to and asked, where that is bounded."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

_CHUNK_BYTES = 1 << 18


@dataclass(slots=True)
class Meter:
    """Lets through *rate* a second at most; each amount waits for those before it."""

    rate: float
    clock: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]]
    _free_at: float = field(default=0.0, init=False)

    async def take(self, amount: float) -> None:
        """Returns when *amount* may go."""
        now = self.clock()
        goes_at = max(self._free_at, now)
        self._free_at = goes_at + amount / self.rate
        if goes_at > now:
            await self.sleep(goes_at - now)


class Pace:
    """Requests and bytes a second; what is not given is not bounded."""

    def __init__(
        self,
        requests_per_second: float | None = None,
        bytes_per_second: float | None = None,
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._requests = Meter(requests_per_second, clock, sleep) if requests_per_second else None
        self._bytes = Meter(bytes_per_second, clock, sleep) if bytes_per_second else None

    async def request(self, body_bytes: int = 0) -> None:
        """Returns when a request with so large a body may go."""
        if self._requests:
            await self._requests.take(1)
        if self._bytes and body_bytes:
            await self._bytes.take(body_bytes)

    def body(self, file: Path) -> Path | AsyncIterator[bytes]:
        """*file*, in chunks that keep the pace; as it is where bytes are not bounded."""
        return file if self._bytes is None else self._chunks(file, self._bytes)

    async def _chunks(self, file: Path, meter: Meter) -> AsyncIterator[bytes]:
        with file.open("rb") as source:
            while chunk := source.read(_CHUNK_BYTES):
                await meter.take(len(chunk))
                yield chunk

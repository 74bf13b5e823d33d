"""Waits for the next of the times that something is to be done at."""

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

from ao_server.engine.clock import Clock

# The longest sleep: a clock that was set shows by then.
LOOK_SECONDS: Final = 5.0


class Alarm:
    """Knows the next time, in microseconds."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._next: int | None = None
        self._earlier = asyncio.Event()

    def hear(self, times: Iterable[int]) -> None:
        """Something is to be done at these times; called in another thread."""
        earliest = min(times, default=None)
        if earliest is not None:
            self._loop.call_soon_threadsafe(self.expect, earliest)

    def expect(self, time: int) -> None:
        """Something is to be done at this time."""
        if self._next is None or time < self._next:
            self._next = time
            self._earlier.set()

    def forget(self) -> None:
        """What is heard of from here on counts."""
        self._next = None

    async def sleep(self) -> None:
        """Returns when the next time has come, or to look at the clock."""
        while True:
            left = LOOK_SECONDS
            if self._next is not None:
                left = min(left, (self._next - self._clock.now()) / 1e6)
            self._earlier.clear()
            if left <= 0:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._earlier.wait()

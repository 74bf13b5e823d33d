"""Tasks that wait for a time, by their schedule or between two attempts: makes them claimable when it has come."""

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

import structlog

from ao_server.engine import transitions
from ao_server.engine.clock import Clock
from ao_server.errors import DeadlineExceeded, Unavailable
from ao_server.store import rows, tasks
from ao_server.store.changes import Change, Changes, Found, Operation
from ao_server.store.reader import Reader
from ao_server.store.selections import TaskSelections
from ao_server.store.writer import Writer

log = structlog.get_logger("ao_server.engine.releases")

RELEASED_AT_ONCE: Final = 500
# The longest sleep: a clock that was set shows by then.
LOOK_SECONDS: Final = 5.0
AGAIN_SECONDS: Final = 1.0


class Releases:
    """Knows when the next task is ready, and sees to it."""

    def __init__(self, reader: Reader, selections: TaskSelections, clock: Clock) -> None:
        self._reader = reader
        self._selections = selections
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._next: int | None = None
        self._earlier = asyncio.Event()

    def observe(self, changes: Iterable[Change]) -> None:
        """Hears of every commit, in the writer's thread."""
        times = [after.ready_at for _, after in changes if type(after) is rows.Task and after.ready_at is not None]
        if times:
            self._loop.call_soon_threadsafe(self._expect, min(times))

    async def run(self, writer: Writer) -> None:
        """Runs for as long as the server does."""
        while True:
            # From here on: what is heard of while the store is read must not be forgotten for what was read.
            self._next = None
            try:
                while await writer.submit(self.release()) == RELEASED_AT_ONCE:
                    pass
                kept = await tasks.next_ready_at(self._reader)
                if kept is not None:
                    self._expect(kept)
            except (Unavailable, DeadlineExceeded) as problem:
                log.warning("releases_postponed", reason=problem.message)
                await asyncio.sleep(AGAIN_SECONDS)
                continue
            await self._sleep()

    def release(self) -> Operation[int]:
        """Makes tasks claimable whose time has come; answers how many, at most so many at once."""

        def decide(found: Found, now: int) -> Changes[int]:
            changes = Changes(0)
            for (task,) in found.selected:
                if task.status == "pending" and task.ready_at is not None and task.ready_at <= now:
                    changes.include([transitions.release(task)])
                changes.answer += 1
            return changes

        return Operation(decide, selection=self._selections.ready(self._clock.now(), RELEASED_AT_ONCE))

    async def _sleep(self) -> None:
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

    def _expect(self, time: int) -> None:
        if self._next is None or time < self._next:
            self._next = time
            self._earlier.set()

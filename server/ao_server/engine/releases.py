"""Tasks that wait for a time, by their schedule or between two attempts: makes them claimable when it has come."""

import asyncio
from collections.abc import Iterable
from typing import Final

import structlog

from ao_server.engine import transitions
from ao_server.engine.alarm import Alarm
from ao_server.engine.clock import Clock
from ao_server.errors import DeadlineExceeded, Unavailable
from ao_server.store import rows, tasks
from ao_server.store.changes import Change, Changes, Found, Operation
from ao_server.store.reader import Reader
from ao_server.store.selections import TaskSelections
from ao_server.store.writer import Writer

log = structlog.get_logger("ao_server.engine.releases")

RELEASED_AT_ONCE: Final = 500
AGAIN_SECONDS: Final = 1.0


class Releases:
    """Knows when the next task is ready, and sees to it."""

    def __init__(self, reader: Reader, selections: TaskSelections, clock: Clock) -> None:
        self._reader = reader
        self._selections = selections
        self._clock = clock
        self._alarm = Alarm(clock)

    def observe(self, changes: Iterable[Change]) -> None:
        """Hears of every commit, in the writer's thread."""
        times = [after.ready_at for _, after in changes if type(after) is rows.Task and after.ready_at is not None]
        self._alarm.hear(times)

    async def run(self, writer: Writer) -> None:
        """Runs for as long as the server does."""
        while True:
            # From here on: what is heard of while the store is read must not be forgotten for what was read.
            self._alarm.forget()
            try:
                while await writer.submit(self.release()) == RELEASED_AT_ONCE:
                    pass
                kept = await tasks.next_ready_at(self._reader)
                if kept is not None:
                    self._alarm.expect(kept)
            except (Unavailable, DeadlineExceeded) as problem:
                log.warning("releases_postponed", reason=problem.message)
                await asyncio.sleep(AGAIN_SECONDS)
                continue
            await self._alarm.sleep()

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

"""Steps that have a time-out of their own, approvals and executions: ends them when it is over."""

import asyncio
from collections.abc import Iterable
from typing import Final

import structlog

from ao_server.engine.alarm import Alarm
from ao_server.engine.clock import Clock
from ao_server.errors import DeadlineExceeded, Unavailable
from ao_server.store import executions, rows
from ao_server.store.changes import Change, Changes, Found, Operation
from ao_server.store.reader import Reader
from ao_server.store.workflow_selections import WorkflowSelections
from ao_server.store.writer import Writer

log = structlog.get_logger("ao_server.engine.workflows.due")

ENDED_AT_ONCE: Final = 100
AGAIN_SECONDS: Final = 1.0


class DueSteps:
    """Knows when the next step is due, and sees to it."""

    def __init__(self, reader: Reader, selections: WorkflowSelections, clock: Clock) -> None:
        self._reader = reader
        self._selections = selections
        self._clock = clock
        self._alarm = Alarm(clock)

    def observe(self, changes: Iterable[Change]) -> None:
        """Hears of every commit, in the writer's thread."""
        changed = (after for _, after in changes if type(after) is rows.ExecutionStep)
        self._alarm.hear(step.due_at for step in changed if step.due_at is not None)

    async def run(self, writer: Writer) -> None:
        """Runs for as long as the server does."""
        while True:
            self._alarm.forget()
            try:
                while await writer.submit(self.end()) == ENDED_AT_ONCE:
                    pass
                kept = await executions.next_due_at(self._reader)
                if kept is not None:
                    self._alarm.expect(kept)
            except (Unavailable, DeadlineExceeded) as problem:
                log.warning("due_steps_postponed", reason=problem.message)
                await asyncio.sleep(AGAIN_SECONDS)
                continue
            await self._alarm.sleep()

    def end(self) -> Operation[int]:
        """Ends steps whose time is over; answers how many, at most so many at once."""

        def decide(found: Found, now: int) -> Changes[int]:
            changes = Changes(0)
            for (step,) in found.selected:
                after = rows.copy_of(step)
                after.due_at = None
                if step.status == "running" and step.decision is None:
                    after.decision = "timed_out"
                changes.rows.append(after)
                changes.answer += 1
            return changes

        return Operation(decide, selection=self._selections.due_steps(self._clock.now(), ENDED_AT_ONCE))

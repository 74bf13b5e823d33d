"""Executions of steps that a transaction had no room for: they begin, or stop, in the next ones.

`executions.postponed` says so durably. What it is to do is read off the execution: it begins if it has not, and stops
if that was asked for.
"""

import asyncio
from collections.abc import Iterable
from typing import Final

import structlog

from ao_server.engine.workflows import room
from ao_server.errors import DeadlineExceeded, Unavailable
from ao_server.store import rows
from ao_server.store.changes import Change, Changes, Found, Operation
from ao_server.store.workflow_selections import WorkflowSelections
from ao_server.store.writer import Writer

log = structlog.get_logger("ao_server.engine.workflows.postponed")

AGAIN_SECONDS: Final = 1.0


class PostponedExecutions:
    """Sees to them, the oldest first."""

    def __init__(self, selections: WorkflowSelections) -> None:
        self._selections = selections
        self._loop = asyncio.get_running_loop()
        self._are_there = asyncio.Event()

    def observe(self, changes: Iterable[Change]) -> None:
        """Hears of every commit, in the writer's thread."""
        if any(type(after) is rows.Execution and after.postponed for _, after in changes):
            self._loop.call_soon_threadsafe(self._are_there.set)

    async def run(self, writer: Writer) -> None:
        """Runs for as long as the server does."""
        while True:
            self._are_there.clear()
            try:
                await self.carry_on(writer)
            except (Unavailable, DeadlineExceeded) as problem:
                log.warning("executions_postponed_again", reason=problem.message)
                await asyncio.sleep(AGAIN_SECONDS)
                continue
            await self._are_there.wait()

    async def carry_on(self, writer: Writer) -> None:
        """Lets all of them begin or stop, as many at a time as there is room for."""
        while await writer.submit(self._some()):
            pass

    def _some(self) -> Operation[int]:

        def decide(found: Found, now: int) -> Changes[int]:
            changes = Changes(len(found.selected))
            for (execution,) in found.selected:
                changes.rows.append(after := rows.copy_of(execution))
                after.postponed = None
            return changes

        return Operation(decide, selection=self._selections.postponed_executions(room.EXECUTIONS))

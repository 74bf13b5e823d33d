"""Tasks of a type that no connected process runs: after one lease of that they fail, and say what could be run."""

import asyncio
from collections.abc import Sequence
from typing import Final

import structlog

from ao_server.engine import transitions
from ao_server.engine.clock import Clock
from ao_server.engine.intake import TYPE_QUEUE
from ao_server.engine.registry import Registry
from ao_server.engine.sessions import AgentKey, Session
from ao_server.engine.transitions import Failure
from ao_server.engine.wakes import is_claimable
from ao_server.errors import DeadlineExceeded, Unavailable
from ao_server.store import counts
from ao_server.store.changes import Changes, Found, Operation
from ao_server.store.counts import PendingType
from ao_server.store.reader import Reader
from ao_server.store.selections import TaskSelections
from ao_server.store.writer import Writer

log = structlog.get_logger("ao_server.engine.unhandled")

LOOK_SECONDS: Final = 1.0
FAILED_AT_ONCE: Final = 500
SHOWN_TYPES: Final = 20


class Unhandled:
    """Remembers since when processes are there for a queue, but none for one of its types."""

    def __init__(self, reader: Reader, registry: Registry, selections: TaskSelections, clock: Clock) -> None:
        self._reader = reader
        self._registry = registry
        self._selections = selections
        self._clock = clock
        self._since: dict[PendingType, float] = {}

    async def run(self, writer: Writer) -> None:
        """Runs for as long as the server does."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self.look(writer)
            except (Unavailable, DeadlineExceeded) as problem:
                log.warning("unhandled_postponed", reason=problem.message)

    async def look(self, writer: Writer) -> None:
        """Fails what is overdue now."""
        for pending in await self.overdue():
            await self._fail(writer, pending)

    async def overdue(self) -> list[PendingType]:
        """What no connected process has listed for one lease."""
        now = self._clock.monotonic()
        found = {pending for pending in await counts.pending_types(self._reader) if self._is_unhandled(pending)}
        self._since = {pending: self._since.get(pending, now) for pending in found}
        return [pending for pending, since in self._since.items() if now - since >= self._registry.lease]

    def _is_unhandled(self, pending: PendingType) -> bool:
        sessions = self._sessions(pending)
        return bool(sessions) and not any(each.types is None or pending.type in each.types for each in sessions)

    def _sessions(self, pending: PendingType) -> list[Session]:
        agents = [AgentKey(pending.project_id, pending.agent_id)]
        if not pending.agent_id:
            agents = self._registry.of_type(pending.project_id, pending.agent_type)
        instances = [instance for agent in agents for instance in self._registry.of(agent)]
        return [instance.session for instance in instances if instance.session is not None]

    async def _fail(self, writer: Writer, pending: PendingType) -> None:
        known = sorted({name for session in self._sessions(pending) for name in session.types or ()})
        while await writer.submit(self._failing(pending, known)) == FAILED_AT_ONCE:
            pass
        # What is left waits for its time: it is not looked for each second.
        self._since.pop(pending, None)

    def _failing(self, pending: PendingType, known: Sequence[str]) -> Operation[int]:
        message = no_handler_message(pending.type, known)

        def decide(found: Found, now: int) -> Changes[int]:
            changes = Changes(0)
            if not self._is_unhandled(pending):
                # A process that runs them has come.
                return changes
            for (task,) in found.selected:
                if is_claimable(task):
                    changes.include([transitions.fail(task, Failure("no_handler", message), now)])
                changes.answer += 1
            return changes

        queue = pending.agent_id or TYPE_QUEUE + pending.agent_type
        selection = self._selections.claimable_of_type(pending.project_id, queue, pending.type, FAILED_AT_ONCE)
        return Operation(decide, selection=selection)


def no_handler_message(type_: str, known: Sequence[str], of: str = "connected process") -> str:
    """Says that a type is not run, and which are: the first few of them."""
    listed = ", ".join(known[:SHOWN_TYPES]) + (", ..." if len(known) > SHOWN_TYPES else "")
    return f"no {of} runs tasks of type {type_!r}; they run: {listed or 'nothing'}"

"""The tasks of deleted agents: cancelled little by little, with others' writes between; taken up after a restart."""

import asyncio
from typing import Final

import structlog

from ao_server.engine import administration
from ao_server.engine.sessions import AgentKey
from ao_server.errors import DeadlineExceeded, Unavailable
from ao_server.store import agents, counts
from ao_server.store.reader import Reader
from ao_server.store.selections import TaskSelections
from ao_server.store.writer import Writer

log = structlog.get_logger("ao_server.engine.clearing")

AGAIN_SECONDS: Final = 1.0


class Clearing:
    """Agents that still have tasks to cancel."""

    def __init__(self, selections: TaskSelections) -> None:
        self._selections = selections
        self._left: dict[AgentKey, None] = {}
        self._more = asyncio.Event()

    def add(self, agent: AgentKey) -> None:
        """The agent was deleted."""
        self._left[agent] = None
        self._more.set()

    async def restore(self, reader: Reader) -> None:
        """Takes up what the last server left."""
        for key in await agents.deleted(reader) & await counts.agents_with_unfinished(reader):
            self.add(AgentKey(*key))

    async def run(self, writer: Writer) -> None:
        """Runs for as long as the server does."""
        while True:
            await self._more.wait()
            self._more.clear()
            while self._left:
                agent = next(iter(self._left))
                try:
                    cancelled = await writer.submit(administration.clear(agent, self._selections))
                except (Unavailable, DeadlineExceeded) as problem:
                    log.warning("clearing_postponed", reason=problem.message)
                    await asyncio.sleep(AGAIN_SECONDS)
                    continue
                if not cancelled:
                    del self._left[agent]

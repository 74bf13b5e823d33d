"""Agents whose claims raise: they get nothing for a while, so that nobody else's writes fail for them."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Final

import structlog

from ao_server.engine.sessions import AgentKey

log = structlog.get_logger("ao_server.engine.breakers")

FIRST_WAIT_SECONDS: Final = 1.0
LONGEST_WAIT_SECONDS: Final = 60.0


class Breakers:
    """Who has raised is tried again after ever longer waits. The writer's thread owns it."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        # How often in a row an agent has raised, and when it is tried again.
        self._open: dict[AgentKey, tuple[int, float]] = {}
        # Those of them that the present transaction tries.
        self._tried: set[AgentKey] = set()

    @contextmanager
    def of(self, agent: AgentKey) -> Generator[None, None, None]:
        """What raises in here is the agent's fault."""
        try:
            yield
        except Exception as error:
            self._raised(agent, error)
            raise

    def lets(self, agent: AgentKey) -> bool:
        """Whether the agent may claim now."""
        if agent not in self._open:
            return True
        if self._open[agent][1] > self._monotonic():
            return False
        self._tried.add(agent)
        return True

    def due(self) -> set[AgentKey]:
        """Agents that are to be tried again."""
        if not self._open:
            return set()
        now = self._monotonic()
        return {agent for agent, (_, time) in self._open.items() if time <= now}

    def worked(self) -> None:
        """The transaction was committed: nobody who claimed in it raised."""
        for agent in self._tried:
            self._open.pop(agent, None)
        self._tried.clear()

    def forget(self, agent: AgentKey) -> None:
        """The agent was deleted."""
        self._open.pop(agent, None)

    def _raised(self, agent: AgentKey, error: Exception) -> None:
        times = self._open.get(agent, (0, 0.0))[0] + 1
        wait = min(FIRST_WAIT_SECONDS * 2 ** min(times - 1, 10), LONGEST_WAIT_SECONDS)
        self._open[agent] = (times, self._monotonic() + wait)
        self._tried.discard(agent)
        log.error("claim_failed", agent_id=agent.agent_id, times=times, wait=wait, exc_info=error)

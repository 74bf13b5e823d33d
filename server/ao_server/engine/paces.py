"""How long the tasks of an agent have taken of late, from claim to outcome."""

from collections.abc import Iterable
from typing import Final

from ao_server.engine import counters
from ao_server.engine.sessions import AgentKey
from ao_server.store import rows
from ao_server.store.changes import Change

SHORT_MICROSECONDS: Final = 100_000
# What a transaction's tasks count beside all those before them.
_WEIGHT: Final = 0.2


class Paces:
    """A mean for each agent that forgets. The writer's thread owns it."""

    def __init__(self) -> None:
        self._means: dict[AgentKey, float] = {}

    def observe(self, changes: Iterable[Change]) -> None:
        """Hears of every commit."""
        sums: dict[tuple[str, str], list[int]] = {}
        for before, after in changes:
            if type(after) is rows.Task and after.status == "completed" and before.status == "running":
                total = sums.setdefault((after.project_id, after.agent_id), [0, 0])
                total[0] += counters.duration(after)
                total[1] += 1
        for key, (took, count) in sums.items():
            agent = AgentKey(*key)
            mean = took / count
            self._means[agent] = mean + (1 - _WEIGHT) * (self._means.get(agent, mean) - mean)

    def is_short(self, agent: AgentKey) -> bool:
        """Whether its tasks are over almost as soon as they are sent. Not before some have ended."""
        return self._means.get(agent, SHORT_MICROSECONDS) < SHORT_MICROSECONDS

    def forget(self, agent: AgentKey) -> None:
        """The agent was deleted."""
        self._means.pop(agent, None)

"""What a transaction means for dispatch: slots that it freed, tasks that became claimable, agents that changed."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from ao_server.engine.intake import TYPE_QUEUE
from ao_server.engine.sessions import AgentKey, InstanceKey
from ao_server.store import rows
from ao_server.store.changes import Change
from ao_server.store.selections import lane_of

# A queue, of an agent or of a type, within a project.
Queue = tuple[str, str]
# Types of tasks, None for all.
Types = frozenset[str] | None


@dataclass(slots=True)
class Wakes:
    """What is to be looked at."""

    # Agents that have free slots which they had not, or claimable tasks of their own.
    agents: set[AgentKey] = field(default_factory=set[AgentKey])
    # Ids of tasks that an instance does not hold any more.
    freed: dict[InstanceKey, set[str]] = field(default_factory=dict[InstanceKey, set[str]])
    # Ids of tasks that do not wait any more.
    gone: set[str] = field(default_factory=set[str])
    # By queue, of an agent or of a type: tasks that became claimable in it and were not claimed since, by id.
    waiting: dict[Queue, dict[str, rows.Task]] = field(default_factory=dict[Queue, dict[str, rows.Task]])
    # Agents as this transaction leaves them.
    changed: dict[AgentKey, rows.Agent] = field(default_factory=dict[AgentKey, rows.Agent])

    @classmethod
    def of(cls, changes: Iterable[Change]) -> "Wakes":
        """Reads the changes of a transaction."""
        wakes = cls()
        for before, after in changes:
            if type(after) is rows.Task:
                wakes._task(before, after)
            elif type(after) is rows.Agent:
                wakes._agent(before, after)
        return wakes

    def took(self, task: rows.Task) -> None:
        """A task was claimed: it waits no more."""
        self.gone.add(task.id)
        self.waiting.get((task.project_id, task.queue), {}).pop(task.id, None)

    def arrived(self, queue: Queue, types: Types) -> dict[int, list[str]]:
        """By lane: ids of tasks that became claimable in the queue and still are, of these types."""
        arrived: dict[int, list[str]] = {}
        for task in self.waiting.get(queue, {}).values():
            if types is None or task.type in types:
                arrived.setdefault(lane_of(task), []).append(task.id)
        return arrived

    def _task(self, before: rows.Task | None, after: rows.Task) -> None:
        if before is not None and before.status == "running" and after.status != "running":
            key = InstanceKey(before.project_id, before.agent_id, before.instance_id or "")
            self.freed.setdefault(key, set()).add(before.id)
            self.agents.add(key.agent)
        if is_claimable(after):
            queue = (after.project_id, after.queue)
            self.waiting.setdefault(queue, {})[after.id] = after
            if not after.queue.startswith(TYPE_QUEUE):
                self.agents.add(AgentKey(after.project_id, after.agent_id))
        elif before is not None and is_claimable(before):
            self.gone.add(before.id)

    def _agent(self, before: rows.Agent | None, after: rows.Agent) -> None:
        key = AgentKey(after.project_id, after.id)
        self.changed[key] = after
        if before is not None and (before.mode, before.lost_sessions) != (after.mode, after.lost_sessions):
            self.agents.add(key)


def is_claimable(task: rows.Task) -> bool:
    """Whether the task waits, and its time has come."""
    return task.status == "pending" and task.ready_at is None

"""What a transaction means for dispatch: slots that it freed, tasks that became claimable, agents that changed."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from ao_server.engine.empty_queues import Queue
from ao_server.engine.intake import TYPE_QUEUE
from ao_server.engine.placement import is_suspect
from ao_server.engine.sessions import AgentKey, InstanceKey
from ao_server.store import rows
from ao_server.store.changes import Change


@dataclass(slots=True)
class Wakes:
    """What is to be looked at."""

    # Agents that have free slots which they had not, or claimable tasks of their own.
    agents: set[AgentKey] = field(default_factory=set[AgentKey])
    # Ids of tasks that an instance does not hold any more.
    freed: dict[InstanceKey, set[str]] = field(default_factory=dict[InstanceKey, set[str]])
    # Ids of tasks that do not wait any more: those that were claimed since, and those that had to run alone.
    gone: set[str] = field(default_factory=set[str])
    # By queue, of an agent or of a type: tasks that became claimable in it and were not claimed since, by id.
    waiting: dict[Queue, dict[str, rows.Task]] = field(default_factory=dict[Queue, dict[str, rows.Task]])
    # Those queues, with the types of the tasks.
    filled: set[tuple[Queue, str]] = field(default_factory=set[tuple[Queue, str]])
    # Agents as this transaction leaves them.
    changed: dict[AgentKey, rows.Agent] = field(default_factory=dict[AgentKey, rows.Agent])

    @classmethod
    def of(cls, changes: Iterable[Change]) -> "Wakes":
        """Reads the changes of a transaction."""
        wakes = cls()
        for change in changes:
            if type(change.after) is rows.Task:
                wakes._task(change.before, change.after)
            elif type(change.after) is rows.Agent:
                wakes._agent(change.before, change.after)
        return wakes

    def took(self, task: rows.Task) -> None:
        """A task was claimed: it waits no more."""
        self.gone.add(task.id)
        self.waiting.get((task.project_id, task.queue), {}).pop(task.id, None)

    def claimable(self, queues: Iterable[Queue], types: Collection[str] | None) -> list[rows.Task]:
        """What became claimable in these queues and still is, of these types (None: of all)."""
        return [
            task
            for queue in queues
            for task in self.waiting.get(queue, {}).values()
            if types is None or task.type in types
        ]

    def _task(self, before: rows.Task | None, after: rows.Task) -> None:
        if before is not None and before.status == "running" and after.status != "running":
            key = InstanceKey(before.project_id, before.agent_id, before.instance_id or "")
            self.freed.setdefault(key, set()).add(before.id)
            self.agents.add(key.agent)
        elif before is not None and before.status == "pending" and after.status != "pending" and is_suspect(before):
            self.gone.add(before.id)
        if after.status == "pending" and after.ready_at is None:
            queue = (after.project_id, after.queue)
            self.filled.add((queue, after.type))
            self.waiting.setdefault(queue, {})[after.id] = after
            if not after.queue.startswith(TYPE_QUEUE):
                self.agents.add(AgentKey(after.project_id, after.agent_id))

    def _agent(self, before: rows.Agent | None, after: rows.Agent) -> None:
        key = AgentKey(after.project_id, after.id)
        self.changed[key] = after
        if before is not None and (before.mode, before.lost_sessions) != (after.mode, after.lost_sessions):
            self.agents.add(key)

"""Who is connected: instances (processes of agents), their leases, and the stream each of them has open.

All of it lives in memory and is a view of the store: after a restart the instances that hold running tasks are known
from the rows, each with a full lease. Two threads meet here. The event loop owns the registry, streams and leases; the
writer's thread owns `Instance.held`, which it changes between one commit and the next transaction.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ao_server.engine.clock import Clock
from ao_server.engine.sessions import AgentKey, InstanceKey, Session
from ao_server.errors import Superseded
from ao_server.store import rows
from ao_server.store.changes import Change


@dataclass(eq=False, slots=True)
class Instance:
    """A process of an agent, for as long as its lease lasts, connected or not."""

    key: InstanceKey
    expires_at: float
    session: Session | None = None
    # Its lease ran out and its work is being handed to others: it cannot be renewed any more.
    expired: bool = False
    # Task id to attempt number. Only the writer's thread changes it.
    held: dict[str, int] = field(default_factory=dict[str, int])

    def free_after(self, freed: int) -> int:
        """How many more attempts it can take once this many of those it holds have ended."""
        session = self.session
        if session is None or not session.ready or session.deaf or self.expired:
            return 0
        return max(0, min(session.limit, session.capacity) - len(self.held) + freed)


class Registry:
    """Every instance that is connected or within its lease."""

    def __init__(self, clock: Clock, lease: float) -> None:
        """`lease` in seconds."""
        self.lease = lease
        self._clock = clock
        self._instances: dict[AgentKey, dict[str, Instance]] = {}

    def restore(self, running: Iterable[rows.Task]) -> None:
        """After a start: the instances that held tasks when the last server ended, each with a full lease."""
        for task in running:
            if task.instance_id is not None:
                key = InstanceKey(task.project_id, task.agent_id, task.instance_id)
                self._ensure(key).held[task.id] = task.attempt

    def attach(self, session: Session) -> Instance:
        """Gives the instance this stream; an older stream of it ends."""
        instance = self.find(session.key)
        if instance is None or instance.expired:
            instance = self._add(Instance(session.key, 0.0))
        if instance.session is not None:
            instance.session.end(Superseded("a newer stream of this instance took over"))
        instance.session = session
        instance.expires_at = self._clock.monotonic() + self.lease
        return instance

    def renew(self, instance: Instance) -> None:
        """A status arrived: the lease runs anew. Superseded when it had run out before."""
        if instance.expired:
            raise Superseded("the lease of this instance ran out")
        instance.expires_at = self._clock.monotonic() + self.lease

    def detach(self, session: Session) -> None:
        """The stream ended. The lease goes on; a newer stream of the instance is left alone."""
        session.ready = False
        instance = self.find(session.key)
        if instance is not None and instance.session is session:
            instance.session = None

    def remove(self, instance: Instance) -> None:
        """The instance is gone and holds nothing."""
        instances = self._instances.get(instance.key.agent, {})
        if instances.get(instance.key.instance_id) is instance:
            del instances[instance.key.instance_id]
            if not instances:
                del self._instances[instance.key.agent]

    def find(self, key: InstanceKey) -> Instance | None:
        """The instance, if it is known."""
        return self._instances.get(key.agent, {}).get(key.instance_id)

    def of(self, agent: AgentKey) -> list[Instance]:
        """The instances of an agent."""
        return list(self._instances.get(agent, {}).values())

    def is_present(self, agent: AgentKey) -> bool:
        """Whether any process of the agent is connected or within its lease."""
        return agent in self._instances

    def expire(self) -> list[Instance]:
        """The instances whose lease has run out, marked so that none of them can be renewed."""
        now = self._clock.monotonic()
        late = [instance for instance in self if instance.expires_at <= now]
        for instance in late:
            instance.expired = True
        return late

    def __iter__(self) -> Iterator[Instance]:
        """Every instance."""
        for instances in list(self._instances.values()):
            yield from list(instances.values())

    def observe(self, changes: Iterable[Change]) -> None:
        """Keeps `held` in step with what was committed. Runs in the writer's thread."""
        for change in changes:
            if type(change.after) is rows.Task:
                self._observe_task(change.before, change.after)

    def _observe_task(self, before: rows.Task | None, after: rows.Task) -> None:
        if before is not None and before.status == "running":
            holder = self._holder(before)
            if holder is not None:
                holder.held.pop(before.id, None)
        if after.status == "running":
            holder = self._holder(after)
            if holder is not None:
                holder.held[after.id] = after.attempt

    def _holder(self, task: rows.Task) -> Instance | None:
        return self.find(InstanceKey(task.project_id, task.agent_id, task.instance_id or ""))

    def _ensure(self, key: InstanceKey) -> Instance:
        return self.find(key) or self._add(Instance(key, self._clock.monotonic() + self.lease))

    def _add(self, instance: Instance) -> Instance:
        self._instances.setdefault(instance.key.agent, {})[instance.key.instance_id] = instance
        return instance

"""Who is connected: instances (processes of agents), their leases, and the stream each of them has open.

All of it lives in memory and is a view of the store: after a restart the instances that hold running tasks are known
from the rows, each with a full lease. Two threads meet here. The event loop owns the registry, streams and leases; the
writer's thread owns `Instance.held`, which it changes between one commit and the next transaction.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from ao_server.engine.cancellation import CONFIRM_MICROSECONDS
from ao_server.engine.clock import Clock
from ao_server.engine.placement import Room, Taker
from ao_server.engine.sessions import AgentKey, Attempt, InstanceKey, Session
from ao_server.engine.transitions import SUSPECT_DELIVERIES
from ao_server.errors import Superseded
from ao_server.store import rows
from ao_server.store.changes import Change


@dataclass(eq=False, slots=True)
class Instance:
    """A process of an agent, for as long as its lease lasts, connected or not."""

    key: InstanceKey
    expires_at: float
    session: Session | None = None
    # Clock.now() of its last report.
    heard_at: int = 0
    # Its lease ran out and its work is being handed to others: it cannot be renewed any more.
    expired: bool = False
    # Task id to attempt number, as the store has it. Only the writer's thread changes it; a process that comes back
    # before its work was handed out goes on with the same.
    held: dict[str, int] = field(default_factory=dict[str, int])
    # Task id to the monotonic time at which the server gives the attempt up, its process having failed to.
    deadlines: dict[str, float] = field(default_factory=dict[str, float])
    # Those of the held tasks that must run alone.
    alone: frozenset[str] = frozenset()

    def room(self, freed: Collection[str]) -> Room | None:
        """What it can take once these tasks have ended; None while no process is there that could take anything."""
        session = self.session
        if session is None or not session.ready or session.deaf or self.expired:
            return None
        held = self.holds(freed)
        free = max(0, min(session.limit, session.capacity) - held)
        is_exclusive = bool(self.alone and self.alone.difference(freed))
        return Room(session.types, free, held, is_exclusive=is_exclusive)

    def holds(self, freed: Collection[str]) -> int:
        """How many tasks it holds once these have ended."""
        return len(self.held) - sum(map(self.held.__contains__, freed))

    def successor(self) -> "Instance":
        """The same process, come back after its lease."""
        return Instance(self.key, 0.0, held=self.held, deadlines=self.deadlines, alone=self.alone)

    def hold(self, task: rows.Task, deadline: float) -> None:
        """It holds this running task until the monotonic time `deadline` at most."""
        self.held[task.id] = task.attempt
        self.deadlines[task.id] = deadline
        # The claim has counted as a delivery already.
        if task.deliveries > SUSPECT_DELIVERIES:
            self.alone |= {task.id}

    def must_end(self, task_id: str, deadline: float) -> None:
        """It is given up at the monotonic time `deadline`, if not before."""
        self.deadlines[task_id] = min(deadline, self.deadlines.get(task_id, deadline))

    def let_go(self, task_id: str) -> None:
        """It does not hold the task any more."""
        self.held.pop(task_id, None)
        self.deadlines.pop(task_id, None)
        if task_id in self.alone:
            self.alone -= {task_id}


class Registry:
    """Every instance that is connected or within its lease."""

    def __init__(self, clock: Clock, lease: float) -> None:
        """`lease` in seconds."""
        self.lease = lease
        self._clock = clock
        self._instances: dict[AgentKey, dict[str, Instance]] = {}
        # The records of agents that are present, as committed.
        self._agents: dict[AgentKey, rows.Agent] = {}

    def restore(self, running: Iterable[rows.Task]) -> None:
        """After a start: the instances that held tasks when the last server ended, each with a full lease."""
        for task in running:
            if task.instance_id is not None:
                key = InstanceKey(task.project_id, task.agent_id, task.instance_id)
                self._ensure(key).hold(task, self._deadline_from_wall_time(task))

    def attach(self, session: Session) -> Instance:
        """Gives the instance this stream; an older stream of it ends."""
        instance = self.find(session.key)
        if instance is not None and instance.session is not None:
            instance.session.end(Superseded("a newer stream of this instance took over"))
        if instance is None or instance.expired:
            instance = self._add(Instance(session.key, 0.0) if instance is None else instance.successor())
        instance.session = session
        self._heard(instance)
        return instance

    def renew(self, instance: Instance) -> None:
        """A status arrived: the lease runs anew. Superseded when it had run out before."""
        if instance.expired:
            raise Superseded("the lease of this instance ran out")
        self._heard(instance)

    def _heard(self, instance: Instance) -> None:
        instance.heard_at = self._clock.now()
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
                self._agents.pop(instance.key.agent, None)

    def find(self, key: InstanceKey) -> Instance | None:
        """The instance, if it is known."""
        return self._instances.get(key.agent, {}).get(key.instance_id)

    def of(self, agent: AgentKey) -> list[Instance]:
        """The instances of an agent."""
        return list(self._instances.get(agent, {}).values())

    def agent(self, agent: AgentKey) -> rows.Agent | None:
        """The record of an agent that is present."""
        return self._agents.get(agent)

    def of_type(self, project_id: str, type_: str) -> list[AgentKey]:
        """The agents of a type that are present."""
        found = list(self._agents.items())
        return [key for key, agent in found if (agent.project_id, agent.type) == (project_id, type_)]

    def rooms(self, agent: AgentKey, freed: Mapping[InstanceKey, Collection[str]] = {}) -> dict[Instance, Room]:
        """What each process of an agent that can take work at all can take, once these tasks have ended."""
        rooms = ((instance, instance.room(freed.get(instance.key, ()))) for instance in self.of(agent))
        return {instance: room for instance, room in rooms if room is not None}

    def taker(self, agent: rows.Agent) -> Taker:
        """What the agent could take now."""
        key = AgentKey(agent.project_id, agent.id)
        rooms = list(self.rooms(key).values())
        return Taker(agent, rooms, self.held(key, {}) - sum(room.held for room in rooms))

    def held(self, agent: AgentKey, freed: Mapping[InstanceKey, Collection[str]]) -> int:
        """How many tasks the processes of an agent hold, connected or not, once these have ended."""
        return sum(instance.holds(freed.get(instance.key, ())) for instance in self.of(agent))

    def overdue(self) -> list[tuple[Instance, Attempt]]:
        """Attempts whose deadline has passed."""
        now = self._clock.monotonic()
        # Copies: the writer's thread changes both meanwhile.
        return [
            (instance, Attempt(task_id, number))
            for instance in self
            for task_id, deadline in instance.deadlines.copy().items()
            if deadline <= now and (number := instance.held.get(task_id)) is not None
        ]

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
        for before, after in changes:
            if type(after) is rows.Task:
                self._observe_task(before, after)
            elif type(after) is rows.Agent:
                self._observe_agent(after)

    def _observe_task(self, before: rows.Task | None, after: rows.Task) -> None:
        if before is not None and before.status == "running":
            if (after.status, after.attempt) == ("running", before.attempt):
                if after.cancel_requested_at is not None and before.cancel_requested_at is None:
                    self._must_confirm(after)
                return
            if (holder := self._holder(before)) is not None:
                holder.let_go(before.id)
        if after.status == "running" and (holder := self._holder(after)) is not None:
            holder.hold(after, self._clock.monotonic() + _allowed(after))

    def _must_confirm(self, task: rows.Task) -> None:
        holder = self._holder(task)
        if holder is not None:
            holder.must_end(task.id, self._clock.monotonic() + CONFIRM_MICROSECONDS / 1e6)

    def _observe_agent(self, agent: rows.Agent) -> None:
        key = AgentKey(agent.project_id, agent.id)
        if agent.deleted_at is None and key in self._instances:
            self._agents[key] = agent
        else:
            self._agents.pop(key, None)

    def _deadline_from_wall_time(self, task: rows.Task) -> float:
        """When an attempt that began under the last server is given up: no clock but the wall's knows that."""
        now = self._clock.now()
        times_out_at = task.times_out_at if task.times_out_at is not None else now
        if task.cancel_requested_at is not None:
            times_out_at = min(times_out_at, task.cancel_requested_at + CONFIRM_MICROSECONDS)
        # Its process may hold an outcome that it could not tell anybody.
        return self._clock.monotonic() + max((times_out_at - now) / 1e6, self.lease)

    def _holder(self, task: rows.Task) -> Instance | None:
        return self.find(InstanceKey(task.project_id, task.agent_id, task.instance_id or ""))

    def _ensure(self, key: InstanceKey) -> Instance:
        return self.find(key) or self._add(Instance(key, self._clock.monotonic() + self.lease))

    def _add(self, instance: Instance) -> Instance:
        self._instances.setdefault(instance.key.agent, {})[instance.key.instance_id] = instance
        return instance


def _allowed(task: rows.Task) -> float:
    """Seconds from the claim of an attempt until the server gives it up."""
    if task.times_out_at is None or task.started_at is None:
        return 0.0
    return (task.times_out_at - task.started_at) / 1e6

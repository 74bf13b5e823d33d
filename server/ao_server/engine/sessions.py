"""Who is connected: instances (processes of agents), their leases, and the stream each of them has open.

All of it lives in memory and is a view of the store: after a restart the instances that hold running tasks are known
from the rows, each with a full lease. Two threads meet here. The event loop owns the registry, streams and leases; the
writer's thread owns `Instance.held`, which it changes between one commit and the next transaction.
"""

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from ao_server.engine.clock import Clock
from ao_server.errors import Superseded, Unavailable
from ao_server.store import rows
from ao_server.store.changes import Change

OUTBOX_LIMIT: Final = 10_000


class AgentKey(NamedTuple):
    """An agent."""

    project_id: str
    agent_id: str


class InstanceKey(NamedTuple):
    """A process of an agent."""

    project_id: str
    agent_id: str
    instance_id: str

    @property
    def agent(self) -> AgentKey:
        """The agent that it belongs to."""
        return AgentKey(self.project_id, self.agent_id)


class Attempt(NamedTuple):
    """One attempt at a task: the pair that fences every report."""

    task_id: str
    number: int


@dataclass(frozen=True, slots=True)
class Assignment:
    """Work for a session. `timeout` in seconds."""

    attempt: Attempt
    type: str
    payload: str
    timeout: float


@dataclass(frozen=True, slots=True)
class Assign:
    """Work, numbered within the session."""

    number: int
    assignments: list[Assignment]


@dataclass(frozen=True, slots=True)
class Supersede:
    """These attempts are no longer the instance's: stop them, report nothing."""

    attempts: list[Attempt]


@dataclass(frozen=True, slots=True)
class Settled:
    """Outcomes that are durable (True) or refused (False)."""

    settlements: list[tuple[Attempt, bool]]


@dataclass(frozen=True, slots=True)
class Renewed:
    """The lease runs anew from the sending of this status."""

    number: int


@dataclass(frozen=True, slots=True)
class Stopping:
    """The server goes down on purpose."""


ToRunner = Assign | Supersede | Settled | Renewed | Stopping


@dataclass(slots=True)
class Load:
    """What a process said of itself. Percent, percent of a core, seconds."""

    memory_usage: float = 0.0
    cpu_usage: float = 0.0
    uptime: float = 0.0
    # Clock.now() of the report.
    at: int = 0


class Session:
    """One open stream of an instance."""

    def __init__(self, session_id: str, key: InstanceKey, types: frozenset[str] | None, limit: int) -> None:
        """`types`: what it can run, None for everything. `limit`: attempts that the process may hold."""
        self.id = session_id
        self.key = key
        self.types = types
        self.limit = limit
        self.capacity = limit
        # Work is given only after the welcome is on its way.
        self.ready = False
        # Set while assignments go unanswered: a deaf process is not fed.
        self.deaf = False
        self.load = Load()
        # An exception in it ends the stream.
        self.outbox: asyncio.Queue[ToRunner | Exception] = asyncio.Queue()
        self.last_assign = 0
        # Task id to the number of its assignment (0: held since hello) and when that was sent.
        self._given: dict[str, tuple[int, float]] = {}
        self._strangers: set[Attempt] = set()

    def push(self, message: ToRunner) -> None:
        """Queues a message; at the bound the slow reader loses the stream, and its lease sorts out the rest."""
        if self.outbox.qsize() >= OUTBOX_LIMIT:
            self.end(Unavailable("the stream is not read fast enough"))
        else:
            self.outbox.put_nowait(message)

    def keep(self, task_ids: Iterable[str]) -> None:
        """Attempts that the process held when it said hello."""
        self._given.update(dict.fromkeys(task_ids, (0, 0.0)))

    def assign(self, assignments: list[Assignment], monotonic: float) -> None:
        """Hands out work under the next number."""
        self.last_assign += 1
        for assignment in assignments:
            self._given[assignment.attempt.task_id] = (self.last_assign, monotonic)
        self.push(Assign(self.last_assign, assignments))

    def end(self, reason: Exception) -> None:
        """Ends the stream for this reason, after what is queued."""
        self.ready = False
        self.outbox.put_nowait(reason)

    def not_taken_up(
        self, held: Mapping[str, int], believed: Mapping[str, int], last_assign: int, overdue: float
    ) -> set[str]:
        """Assignments that never became work, given a status of the process: `held` is what it holds, `believed` what
        the store says it holds, both by task id. They are those that the process has read past without taking them up,
        and those sent before the monotonic time `overdue` and still unread; the latter make it `deaf`.
        """
        lost: set[str] = set()
        for task_id, (number, sent_at) in list(self._given.items()):
            if task_id not in believed:
                del self._given[task_id]
            elif held.get(task_id) == believed[task_id]:
                self.deaf = False
            elif number <= last_assign or sent_at <= overdue:
                self.deaf = self.deaf or number > last_assign
                del self._given[task_id]
                lost.add(task_id)
        return lost

    def strangers(self, held: Mapping[str, int], believed: Mapping[str, int]) -> list[Attempt]:
        """Attempts that the process has held in two statuses running without the store's knowing of it."""
        strangers = {Attempt(*each) for each in held.items() if believed.get(each[0]) != each[1]}
        lasting = strangers & self._strangers
        self._strangers = strangers
        return sorted(lasting)


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

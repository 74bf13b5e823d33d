"""One open stream of an instance (a process of an agent), as the engine sees it: what was given, what is to be sent."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

import msgspec

from ao_server.engine.outbox import Outbox
from ao_server.errors import Unavailable

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


class Assignment(msgspec.Struct, frozen=True):
    """Work for a session. `timeout` in seconds."""

    attempt: Attempt
    type: str
    payload: str
    timeout: float


class Assign(msgspec.Struct, frozen=True):
    """Work, numbered within the session."""

    number: int
    assignments: list[Assignment]


@dataclass(frozen=True, slots=True)
class Stop:
    """These attempts are to stop: because they were asked to (`requested`), or because they are no longer the
    instance's (`superseded`), so that nothing is to be reported of them.
    """

    attempts: list[Attempt]
    reason: str = "superseded"


@dataclass(frozen=True, slots=True)
class Configure:
    """The agent's stored settings, in force from now on."""

    configuration: str
    max_concurrent_tasks: int


class Settled(msgspec.Struct, frozen=True):
    """Outcomes that are durable (True) or refused (False)."""

    settlements: list[tuple[Attempt, bool]]


@dataclass(frozen=True, slots=True)
class Renewed:
    """The lease runs anew from the sending of this status."""

    number: int


@dataclass(frozen=True, slots=True)
class Stopping:
    """The server goes down on purpose."""


ToRunner = Assign | Stop | Configure | Settled | Renewed | Stopping


@dataclass(slots=True)
class Load:
    """What a process said of itself. Percent, percent of a core, seconds."""

    memory_usage: float = 0.0
    cpu_usage: float = 0.0
    uptime: float = 0.0
    # Attempts that ended for the server while their code did not.
    stuck: int = 0


@dataclass(frozen=True, slots=True)
class TaskType:
    """What a process says of a type of tasks that it runs; `*` stands for every type."""

    name: str
    description: str | None = None
    schema: str | None = None


ANY_TYPE: Final = "*"
# One for all sessions: an empty set has 216 bytes.
_NO_ATTEMPTS: Final[frozenset[Attempt]] = frozenset()


class Session:
    """One open stream of an instance."""

    __slots__ = (
        "_given",
        "_read",
        "_strangers",
        "_unread",
        "capacity",
        "has_ended",
        "id",
        "key",
        "last_assign",
        "limit",
        "load",
        "outbox",
        "ready",
        "task_types",
        "types",
    )

    def __init__(self, session_id: str, key: InstanceKey, task_types: Sequence[TaskType], limit: int) -> None:
        """`limit`: attempts that the process may hold."""
        self.id = session_id
        self.key = key
        self.task_types = task_types
        # What it can run, None for everything.
        self.types = _types(tuple(each.name for each in task_types))
        self.limit = limit
        self.capacity = limit
        # Work is given only after the welcome is on its way.
        self.ready = False
        # Nothing more is sent on it, and it renews no lease.
        self.has_ended = False
        self.load = Load()
        # An exception in it ends the stream.
        self.outbox: Outbox[ToRunner | Exception] = Outbox()
        self.last_assign = 0
        # The last assignment that the process has read, and the last that it left unread for a lease.
        self._read = 0
        self._unread = 0
        # Task id to its attempt, the number of its assignment (0: held since hello) and when that was sent.
        self._given: dict[str, tuple[int, int, float]] = {}
        self._strangers = _NO_ATTEMPTS

    @property
    def deaf(self) -> bool:
        """Whether it leaves assignments unread: a deaf process is not fed."""
        return self._unread > self._read

    def push(self, message: ToRunner) -> None:
        """Queues a message; at the bound the slow reader loses the stream, and its lease sorts out the rest."""
        if self.has_ended:
            return
        if len(self.outbox) >= OUTBOX_LIMIT:
            self.end(Unavailable("the stream is not read fast enough"))
        else:
            self.outbox.put(message)

    def keep(self, attempts: Mapping[str, int]) -> None:
        """Attempts that the process held when it said hello, by task id."""
        self._given.update({task_id: (attempt, 0, 0.0) for task_id, attempt in attempts.items()})

    def assign(self, assignments: list[Assignment], monotonic: float) -> None:
        """Hands out work under the next number."""
        self.last_assign += 1
        for assignment in assignments:
            attempt = assignment.attempt
            self._given[attempt.task_id] = (attempt.number, self.last_assign, monotonic)
        self.push(Assign(self.last_assign, assignments))

    def end(self, reason: Exception) -> None:
        """Ends the stream for this reason, after what is queued; the first reason counts."""
        self.ready = False
        if not self.has_ended:
            self.has_ended = True
            self.outbox.put(reason)

    def not_taken_up(
        self, held: Mapping[str, int], believed: Mapping[str, int], last_assign: int, overdue: float
    ) -> list[Attempt]:
        """Assignments that never became work, given a status of the process: `held` is what it holds, `believed` what
        the store says it holds, both by task id. They are those that the process has read past without taking them up,
        and those sent before the monotonic time `overdue` and still unread; the latter make it `deaf` until it has read
        them.
        """
        self._read = max(self._read, last_assign)
        lost: list[Attempt] = []
        for task_id, (attempt, number, sent_at) in list(self._given.items()):
            if believed.get(task_id) != attempt:
                # It has ended; a newer attempt of the task is not given yet.
                del self._given[task_id]
            elif held.get(task_id) != attempt and (number <= last_assign or sent_at <= overdue):
                self._unread = max(self._unread, number)
                del self._given[task_id]
                lost.append(Attempt(task_id, attempt))
        return sorted(lost)

    def strangers(self, held: Mapping[str, int], believed: Mapping[str, int]) -> list[Attempt]:
        """Attempts that the process has held in two statuses running without the store's knowing of it."""
        strangers = {Attempt(*each) for each in held.items() if believed.get(each[0]) != each[1]}
        lasting = strangers & self._strangers
        self._strangers = frozenset(strangers) if strangers else _NO_ATTEMPTS
        return sorted(lasting)


@lru_cache(256)
def _types(names: tuple[str, ...]) -> frozenset[str] | None:
    """The same set for all processes that run the same."""
    return None if ANY_TYPE in names else frozenset(names)

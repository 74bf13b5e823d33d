"""This process as one instance of an agent: what stays the same from one stream to the next."""

import asyncio
import logging
import math
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from agent_orchestration.v1 import agents_pb2, runners_pb2
from agent_runner import clock, outcomes
from agent_runner.attempts import AsyncAttempt, Attempt, Handler, ThreadAttempt, UserLoop, is_async
from agent_runner.held import Held
from agent_runner.lease import HELLO, LeaseClock
from agent_runner.load import Load, memory_usage, uptime
from agent_runner.outbox import AttemptId, Outbox
from agent_runner.task import Task
from agent_runner.threads import Threads

log = logging.getLogger("agent_runner")

PROTOCOL_VERSION: Final = 1
ANY_TYPE: Final = "*"


@dataclass(frozen=True, slots=True)
class Definition:
    """What the code says of the agent. `configuration` is the text of a JSON object."""

    name: str
    type: str
    agent_id: str | None
    environment: str | None
    configuration: str
    handlers: Mapping[str, Handler]


class Instance:
    """Holds attempts and the lease on them, and speaks of both. Owned by the link's thread."""

    def __init__(
        self,
        definition: Definition,
        user: UserLoop,
        wake: Callable[[], None],
        now: Callable[[], float] = clock.now,
    ) -> None:
        """`wake` is called from any thread when agent code has something to say."""
        self.definition = definition
        self.outbox = Outbox(wake)
        self.held = Held(self._prepare, self.outbox)
        self.lease = LeaseClock()
        # Seconds; unknown before the first welcome.
        self.lease_seconds = math.inf
        self.now = now
        self._id = secrets.token_hex(16)
        self._agent_id = definition.agent_id
        self._user = user
        self._threads = Threads(definition.name)
        self._load = Load()
        self._lease_moved = asyncio.Event()

    def hello(self) -> runners_pb2.ConnectRequest:
        """The first message of a stream. Called right before it is sent: the lease is counted from here."""
        self.give_up_if_expired()
        me = self.definition
        hello = runners_pb2.Hello(
            agent_id=self._agent_id,
            type=me.type,
            name=me.name,
            instance_id=self._id,
            task_types=[agents_pb2.TaskType(name=name) for name in me.handlers],
            held=self.held.messages(),
            configuration=me.configuration,
            environment=me.environment,
            protocol_version=PROTOCOL_VERSION,
        )
        hello.uptime.FromMicroseconds(round(uptime() * 1e6))
        self.lease.sent(HELLO, self.now())
        return runners_pb2.ConnectRequest(hello=hello)

    def welcomed(self, welcome: runners_pb2.Welcome) -> None:
        """The server took the instance in."""
        self._agent_id = welcome.agent_id
        self.lease_seconds = welcome.lease.ToMicroseconds() / 1e6
        self.lease.welcomed(self.lease_seconds)
        self._lease_moved.set()
        self.configure(welcome.configure)
        self.held.new_stream()
        log.info("%s: connected as %s", self.definition.name, welcome.agent_id)

    def configure(self, configure: runners_pb2.Configure) -> None:
        """The stored settings are in force from here on."""
        self.held.limit = configure.max_concurrent_tasks
        self._threads.resize(configure.max_concurrent_tasks)

    def status(self, number: int, last_assign: int) -> runners_pb2.Status:
        """What is held and how the process does. Called right before it is sent: the lease is counted from here."""
        status = runners_pb2.Status(
            number=number,
            held=self.held.messages(),
            last_assign=last_assign,
            capacity=self.held.capacity,
            memory_usage=memory_usage(),
            cpu_usage=self._load.cpu_usage(),
        )
        status.uptime.FromMicroseconds(round(uptime() * 1e6))
        self.lease.sent(number, self.now())
        return status

    def server_is_down(self, at: float) -> None:
        """At this moment no server was up."""
        self.lease.down(at)
        self._lease_moved.set()

    def server_may_be_up(self, at: float) -> None:
        """A connect begun at this moment was not refused."""
        self.lease.up(at)
        self._lease_moved.set()

    def give_up_if_expired(self) -> bool:
        """Stops and forgets everything once the server may have handed it to others, before a word of it is said."""
        if not self.lease.is_expired(self.now()):
            return False
        self.lease.lapse()
        given_up = self.held.drop_all()
        if given_up:
            log.warning("%s: the lease ran out, %d attempts are given up", self.definition.name, given_up)
        return True

    async def watch_lease(self, lapsed: Callable[[], None]) -> None:
        """Runs for as long as the instance does; calls `lapsed` each time that the lease has run out."""
        while True:
            left = self.lease.deadline - self.now()
            self._lease_moved.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(left if math.isfinite(left) else None):
                    await self._lease_moved.wait()
            if self.give_up_if_expired():
                lapsed()

    def close(self) -> None:
        """Stops all code that can be stopped and forgets it."""
        self.held.drop_all()
        self._threads.resize(0)

    def _prepare(self, attempt: AttemptId, assignment: runners_pb2.Assignment) -> Attempt | runners_pb2.Outcome:
        handlers = self.definition.handlers
        handler = handlers.get(assignment.type) or handlers.get(ANY_TYPE)
        if handler is None:
            known = ", ".join(sorted(handlers))
            return outcomes.failed("no_handler", f"no function is registered for {assignment.type!r}, only for {known}")
        asynchronous = is_async(handler)
        task = Task(
            attempt, assignment.type, assignment.payload, self._agent_id or "", self.outbox, is_plain=not asynchronous
        )
        if asynchronous:
            return AsyncAttempt(attempt, task, handler, self.outbox, self._user)
        return ThreadAttempt(attempt, task, handler, self.outbox, self._user, self._threads)

"""This process as one instance of an agent: what stays the same from one stream to the next."""

import asyncio
import logging
import math
import secrets
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from agent_orchestration.v1 import agents_pb2, runners_pb2
from agent_runner import clock, outcomes
from agent_runner.attempts import AsyncAttempt, Attempt, ProcessAttempt, ThreadAttempt
from agent_runner.children import Children
from agent_runner.definition import Definition, TaskFunction
from agent_runner.doorbell import Doorbell
from agent_runner.held import DEFAULT_GRACE, Grace, Held
from agent_runner.lease import HELLO, LeaseClock
from agent_runner.load import Load, memory_usage, uptime
from agent_runner.outbox import AttemptId, Outbox
from agent_runner.program import Program, Run
from agent_runner.reports import Reports
from agent_runner.task import AgentInfo, Task
from agent_runner.threads import Threads
from agent_runner.user_loop import UserLoop

log = logging.getLogger("agent_runner")

PROTOCOL_VERSION: Final = 1


class Instance:
    """Holds attempts and the lease on them, and speaks of both. Owned by the link's thread."""

    def __init__(
        self,
        definition: Definition,
        user: UserLoop,
        wake: Callable[[], None],
        now: Callable[[], float] = clock.now,
        grace: Grace = DEFAULT_GRACE,
    ) -> None:
        """`wake` is called from any thread when agent code has something to say."""
        self.definition = definition
        self.outbox = Outbox(Doorbell(user, wake))
        self.held = Held(self._prepare, self.outbox, wake, grace)
        self.lease = LeaseClock()
        # Seconds; unknown before the first welcome.
        self.lease_seconds = math.inf
        self.now = now
        self._id = secrets.token_hex(16)
        self._agent_id = definition.agent_id
        self._agent = AgentInfo(definition.agent_id or "", definition.name, definition.type)
        self._user = user
        self._threads = Threads(definition.name)
        self._children = Children(definition.name, definition.type)
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
            task_types=[_task_type(name, function) for name, function in me.listed.items()],
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
        me = self.definition
        self._agent = AgentInfo(self._agent_id or "", me.name, me.type, configure.configuration or "{}")
        self.held.limit = configure.max_concurrent_tasks
        self._threads.resize(configure.max_concurrent_tasks)
        self._children.resize(configure.max_concurrent_tasks)

    def status(self, number: int, last_assign: int) -> runners_pb2.Status:
        """What is held and how the process does. Called right before it is sent: the lease is counted from here."""
        status = runners_pb2.Status(
            number=number,
            held=self.held.messages(),
            last_assign=last_assign,
            capacity=self.held.capacity,
            memory_usage=memory_usage(),
            cpu_usage=self._load.cpu_usage(),
            stuck=self.held.stuck,
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
        self.held.kill_all()
        self._children.close()
        self._threads.resize(0)

    def _prepare(self, id: AttemptId, assignment: runners_pb2.Assignment) -> Attempt | runners_pb2.Outcome:
        function = self.definition.function(assignment.type)
        if function is None:
            known = ", ".join(sorted(self.definition.functions))
            message = f"no function is registered for {assignment.type!r}, only for {known}"
            return outcomes.failed(outcomes.NO_HANDLER, message)
        reports = Reports(id, self.outbox)
        timeout = assignment.timeout.seconds + assignment.timeout.nanos / 1e9 or None
        run = function.run
        task = Task(
            id.task_id,
            id.number,
            assignment.type,
            assignment.payload,
            self._agent,
            reports,
            is_plain=not function.is_async,
        )
        if isinstance(run, Program):
            worker = Run(run, task, assignment.payload, reports)
            return ProcessAttempt(id, task, reports, self.outbox, timeout, worker, self._threads)
        if function.isolated is not None:
            worker = self._children.work(function.isolated, assignment, self._agent, reports)
            return ProcessAttempt(id, task, reports, self.outbox, timeout, worker, self._threads)
        if function.is_async:
            return AsyncAttempt(id, task, reports, self.outbox, timeout, run, self._user)
        return ThreadAttempt(id, task, reports, self.outbox, timeout, run, self._user, self._threads)


def _task_type(name: str, function: TaskFunction) -> agents_pb2.TaskType:
    return agents_pb2.TaskType(name=name, description=function.description, schema=function.schema)

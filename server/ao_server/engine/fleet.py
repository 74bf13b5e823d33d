"""The connected processes as a whole: hello, status, goodbye, and the sweep of leases and overdue attempts."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import structlog

from ao_server.engine import attach, configuration, intake, leases, timeouts
from ao_server.engine.clock import Clock
from ao_server.engine.dispatch import Dispatcher
from ao_server.engine.ids import Ids
from ao_server.engine.registry import Instance, Registry
from ao_server.engine.sessions import (
    AgentKey,
    Attempt,
    Configure,
    InstanceKey,
    Renewed,
    Session,
    Stop,
    Stopping,
    TaskType,
)
from ao_server.errors import DeadlineExceeded, NotFound, Unavailable
from ao_server.store import agents, rows, tasks
from ao_server.store.changes import Operation
from ao_server.store.reader import Reader
from ao_server.store.selections import TaskSelections
from ao_server.store.writer import Writer

log = structlog.get_logger("ao_server.engine.fleet")

SWEEP_SECONDS = 1.0


class Fleet:
    """Brings instances in, keeps their leases, and lets them go."""

    def __init__(
        self,
        writer: Writer,
        registry: Registry,
        dispatcher: Dispatcher,
        selections: TaskSelections,
        clock: Clock,
        ids: Ids,
        random: Callable[[], float],
    ) -> None:
        """`random`, from 0 to 1, spreads retries."""
        self._writer = writer
        self._registry = registry
        self._dispatcher = dispatcher
        self._selections = selections
        self._clock = clock
        self._ids = ids
        self._random = random

    async def restore(self, reader: Reader) -> set[AgentKey]:
        """Takes up what the last server left: instances with running tasks. Returns the agents that were active."""
        self._registry.restore(await tasks.running(reader))
        return {AgentKey(agent.project_id, agent.id) for agent in await agents.with_status(reader, "active")}

    async def resolve(self, new: intake.NewAgent, only: str | None = None) -> str:
        """The id of the agent that processes of this type and name become. Forbidden when it is not the only one that
        the process may be.
        """
        configuration.check(new.configuration)
        return await self._writer.submit(attach.register(new, self._ids, only))

    async def hello(
        self, key: InstanceKey, task_types: Sequence[TaskType], held: Mapping[str, int]
    ) -> tuple[Session, attach.Attached]:
        """Attaches a stream. NotFound when the agent does not exist.

        The session gets no work before `open`, so that the welcome goes first.
        """
        session = Session(self._ids.new("session", self._clock.now())[0], key, task_types, limit=0)
        instance = self._registry.attach(session)
        operation = attach.attach(key, held, self._selections)
        try:
            attached = await self._writer.submit(_welcoming(operation, session))
        except NotFound:
            self._registry.detach(session)
            self._registry.remove(instance)
            raise
        except BaseException:
            # The write may have made the agent active: with the lease of the instance that ends as for any other.
            self._registry.detach(session)
            raise
        if attached.superseded:
            session.push(Stop(attached.superseded))
        if attached.to_stop:
            session.push(Stop(attached.to_stop, "requested"))
        return session, attached

    def open(self, session: Session) -> None:
        """The welcome is on its way: work may follow."""
        session.ready = True
        self._look_again(session.key.agent)

    async def status(
        self, session: Session, number: int, held: Mapping[str, int], last_assign: int, capacity: int
    ) -> None:
        """Renews the lease and compares what the process holds with what it is thought to hold. Superseded when its
        lease had run out.
        """
        instance = self._registry.find(session.key)
        if instance is None or instance.session is not session or session.has_ended:
            return
        self._registry.renew(instance)
        session.push(Renewed(number))
        had_room = session.capacity if not session.deaf else 0
        session.capacity = capacity
        believed = dict(instance.held)
        overdue = self._clock.monotonic() - self._registry.lease
        lost = session.not_taken_up(held, believed, last_assign, overdue)
        if lost:
            log.warning("assignments_not_taken_up", agent_id=session.key.agent_id, tasks=len(lost))
            # It may yet come to read what was sent to it.
            session.push(Stop(lost))
            await self._writer.submit(leases.give_back(session.key, lost))
        strangers = session.strangers(held, believed)
        if strangers:
            session.push(Stop(strangers))
        if not session.deaf and capacity > had_room:
            self._look_again(session.key.agent)

    async def goodbye(self, session: Session) -> None:
        """The process leaves: what it still holds is handed out at once."""
        instance = self._registry.find(session.key)
        if instance is not None and instance.session is session:
            instance.expired = True
            await self._writer.submit(leases.say_goodbye(session.key, self._selections))
            await self._forget(instance)

    def leave(self, session: Session) -> None:
        """The stream ended, in whichever way. The lease runs on."""
        self._registry.detach(session)

    async def sweep(self, were_active: set[AgentKey]) -> None:
        """Runs for as long as the server does: hands out the work of instances whose lease ran out.

        `were_active`: agents that were active when the last server ended. They have one lease to come back.
        """
        grace_ends = self._clock.monotonic() + self._registry.lease
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            await self.sweep_once()
            if were_active and self._clock.monotonic() >= grace_ends:
                for agent in list(were_active):
                    if await self._try(leases.settle_agent_status(agent, self._registry.is_present)):
                        were_active.discard(agent)

    async def sweep_once(self) -> None:
        """Hands out the work of instances whose lease ran out, and gives up attempts whose deadline has passed."""
        for instance in self._registry.expire():
            await self._expire(instance)
        for instance, attempt in self._registry.overdue():
            await self._give_up(instance, attempt)

    def configure(self, agent: rows.Agent) -> None:
        """The stored settings of an agent have changed: tells its processes."""
        limit = configuration.settings_of(agent.configuration).max_concurrent_tasks
        key = AgentKey(agent.project_id, agent.id)
        for session in self._sessions(key):
            # A higher limit gives room once the process says that it is ready for it, if it has not said so before.
            session.limit = limit
            session.push(Configure(agent.configuration, limit))
        self._look_again(key)

    def stop_attempt(self, task: rows.Task, reason: str) -> None:
        """Tells the process that holds the running attempt of a task to stop it."""
        key = InstanceKey(task.project_id, task.agent_id, task.instance_id or "")
        instance = self._registry.find(key)
        if instance is not None and instance.session is not None:
            instance.session.push(Stop([Attempt(task.id, task.attempt)], reason))

    def dismiss(self, agent: rows.Agent) -> None:
        """The agent was deleted: its processes are told and end, and nothing is known of them any more."""
        for instance in self._registry.of(AgentKey(agent.project_id, agent.id)):
            instance.expired = True
            if instance.session is not None:
                instance.session.end(NotFound(f"agent {agent.id} was deleted"))
            self._registry.remove(instance)

    def announce_stop(self) -> None:
        """Tells every process that the server goes down on purpose."""
        for instance in self._registry:
            if instance.session is not None:
                instance.session.push(Stopping())
                instance.session.end(Unavailable("the server is stopping"))

    def _look_again(self, agent: AgentKey) -> None:
        """Slots have appeared. When the writer is full or stopping, the next transaction there is will look."""
        with suppress(Unavailable):
            self._writer.post(self._dispatcher.look_again(agent))

    def _sessions(self, agent: AgentKey) -> list[Session]:
        return [each.session for each in self._registry.of(agent) if each.session is not None]

    async def _expire(self, instance: Instance) -> None:
        def is_gone() -> bool:
            return self._registry.find(instance.key) is instance

        if await self._try(leases.lose(instance.key, self._selections, is_gone)) and is_gone():
            log.warning("lease_expired", agent_id=instance.key.agent_id, instance_id=instance.key.instance_id)
            if instance.session is not None:
                instance.session.end(Unavailable("the lease of this instance ran out"))
            await self._forget(instance)

    async def _give_up(self, instance: Instance, attempt: Attempt) -> None:
        """The attempt's time is over, or its cancel was not confirmed, and its process has not ended it."""
        if await self._try(timeouts.give_up(instance.key, attempt, self._random)):
            log.warning("attempt_given_up", agent_id=instance.key.agent_id, task_id=attempt.task_id)
            if instance.session is not None:
                instance.session.push(Stop([attempt]))

    async def _forget(self, instance: Instance) -> None:
        self._registry.remove(instance)
        await self._try(
            leases.settle_agent_status(instance.key.agent, self._registry.is_present, instance.heard_at or None)
        )

    async def _try(self, operation: Operation[Any]) -> bool:
        """Whether the write succeeded; when the store is away the next sweep tries again."""
        try:
            await self._writer.submit(operation)
        except (Unavailable, DeadlineExceeded) as problem:
            log.warning("sweep_postponed", reason=problem.message)
            return False
        return True


def _welcoming(operation: Operation[attach.Attached], session: Session) -> Operation[attach.Attached]:
    """The same write; the session learns what it may hold in its turn, so that a later change of that is not undone."""

    def delivered(attached: attach.Attached) -> None:
        settings = configuration.settings_of(attached.agent.configuration)
        session.limit = session.capacity = settings.max_concurrent_tasks
        session.keep(attached.kept)

    return Operation(operation.decide, operation.keys, operation.selection, delivered=delivered)

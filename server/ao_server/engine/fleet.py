"""The connected processes as a whole: hello, status, goodbye, and the sweep of leases."""

import asyncio
from collections.abc import Mapping
from typing import Any

import structlog

from ao_server.engine import attach, intake, leases
from ao_server.engine.clock import Clock
from ao_server.engine.dispatch import Dispatcher
from ao_server.engine.ids import Ids
from ao_server.engine.registry import Instance, Registry
from ao_server.engine.sessions import AgentKey, InstanceKey, Renewed, Session, Stopping, Supersede
from ao_server.errors import DeadlineExceeded, Unavailable
from ao_server.store import agents, tasks
from ao_server.store.changes import Operation
from ao_server.store.reader import Reader
from ao_server.store.tasks import TaskSelections
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
    ) -> None:
        self._writer = writer
        self._registry = registry
        self._dispatcher = dispatcher
        self._selections = selections
        self._clock = clock
        self._ids = ids

    async def restore(self, reader: Reader) -> set[AgentKey]:
        """Takes up what the last server left: instances with running tasks. Returns the agents that were active."""
        self._registry.restore(await tasks.running(reader))
        return {AgentKey(agent.project_id, agent.id) for agent in await agents.with_status(reader, "active")}

    async def resolve(self, new: intake.NewAgent) -> str:
        """The id of the agent that processes of this type and name become."""
        intake.check_configuration(new.configuration)
        return await self._writer.submit(attach.register(new, self._ids))

    async def hello(
        self, key: InstanceKey, types: frozenset[str] | None, held: Mapping[str, int]
    ) -> tuple[Session, attach.Attached]:
        """Attaches a stream. NotFound when the agent does not exist.

        The session gets no work before `open`, so that the welcome goes first.
        """
        session = Session(self._ids.new("session", self._clock.now())[0], key, types, limit=0)
        instance = self._registry.attach(session)
        operation = attach.attach(key, held, self._selections)
        try:
            attached = await self._writer.submit(_keeping(operation, instance))
        except BaseException:
            self._registry.detach(session)
            if instance.session is None and not instance.held:
                self._registry.remove(instance)
            raise
        session.limit = session.capacity = intake.settings_of(attached.agent.configuration).max_concurrent_tasks
        session.keep(attached.kept)
        if attached.superseded:
            session.push(Supersede(attached.superseded))
        return session, attached

    def open(self, session: Session) -> None:
        """The welcome is on its way: work may follow."""
        session.ready = True
        self._writer.post(self._dispatcher.look_again(session.key.agent))

    async def status(
        self, session: Session, number: int, held: Mapping[str, int], last_assign: int, capacity: int
    ) -> None:
        """Renews the lease and compares what the process holds with what it is thought to hold. Superseded when its
        lease had run out.
        """
        instance = self._registry.find(session.key)
        if instance is None or instance.session is not session:
            return
        self._registry.renew(instance)
        session.push(Renewed(number))
        raised = capacity > session.capacity
        session.capacity = capacity
        believed = dict(instance.held)
        overdue = self._clock.monotonic() - self._registry.lease
        lost = session.not_taken_up(held, believed, last_assign, overdue)
        if lost:
            log.warning("assignments_not_taken_up", agent_id=session.key.agent_id, tasks=len(lost))
            await self._writer.submit(leases.give_back(session.key, lost))
        strangers = session.strangers(held, believed)
        if strangers:
            session.push(Supersede(strangers))
        if raised:
            self._writer.post(self._dispatcher.look_again(session.key.agent))

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
            for instance in self._registry.expire():
                await self._expire(instance)
            if were_active and self._clock.monotonic() >= grace_ends:
                for agent in list(were_active):
                    if await self._try(leases.settle_agent_status(agent, self._registry.is_present)):
                        were_active.discard(agent)

    def announce_stop(self) -> None:
        """Tells every process that the server goes down on purpose."""
        for instance in self._registry:
            if instance.session is not None:
                instance.session.push(Stopping())
                instance.session.end(Unavailable("the server is stopping"))

    async def _expire(self, instance: Instance) -> None:
        if await self._try(leases.lose(instance.key, self._selections)):
            log.warning("lease_expired", agent_id=instance.key.agent_id, instance_id=instance.key.instance_id)
            if instance.session is not None:
                instance.session.end(Unavailable("the lease of this instance ran out"))
            await self._forget(instance)

    async def _forget(self, instance: Instance) -> None:
        self._registry.remove(instance)
        await self._try(leases.settle_agent_status(instance.key.agent, self._registry.is_present))

    async def _try(self, operation: Operation[Any]) -> bool:
        """Whether the write succeeded; when the store is away the next sweep tries again."""
        try:
            await self._writer.submit(operation)
        except (Unavailable, DeadlineExceeded) as problem:
            log.warning("sweep_postponed", reason=problem.message)
            return False
        return True


def _keeping(operation: Operation[attach.Attached], instance: Instance) -> Operation[attach.Attached]:
    """The same write; the attempts that it keeps become the instance's in the moment of the commit."""

    def committed(attached: attach.Attached) -> None:
        instance.held = dict(attached.kept)

    return Operation(operation.decide, operation.keys, operation.selection, committed)

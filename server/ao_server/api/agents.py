"""AgentService."""

from collections.abc import Sequence
from typing import Any

from agent_orchestration.v1 import agents_pb2, agents_pb2_grpc
from ao_server.api import agent_messages, calls, idempotency, messages, pages
from ao_server.engine import administration, configuration, intake, states
from ao_server.engine.administration import AgentUpdate
from ao_server.engine.clearing import Clearing
from ao_server.engine.clock import Clock
from ao_server.engine.fleet import Fleet
from ao_server.engine.idempotency import once
from ao_server.engine.ids import Ids
from ao_server.engine.registry import Registry
from ao_server.engine.sessions import AgentKey
from ao_server.errors import NotFound
from ao_server.store import agents, counts, rows
from ao_server.store.agents import AgentFilter
from ao_server.store.reader import Reader
from ao_server.store.writer import Writer


class AgentServicer(agents_pb2_grpc.AgentServiceServicer):
    """Registers agents, shows and changes them."""

    def __init__(
        self,
        writer: Writer,
        reader: Reader,
        registry: Registry,
        fleet: Fleet,
        clearing: Clearing,
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._writer = writer
        self._reader = reader
        self._registry = registry
        self._fleet = fleet
        self._clearing = clearing
        self._clock = clock
        self._ids = ids

    async def CreateAgent(self, request: agents_pb2.CreateAgentRequest, context: Any) -> agents_pb2.CreateAgentResponse:
        """Registers an agent."""
        call = calls.current()
        new = intake.NewAgent(
            project_id=call.project_id,
            name=request.name,
            type=request.type,
            configuration=request.configuration if request.HasField("configuration") else "{}",
            environment=request.environment if request.HasField("environment") else None,
        )
        configuration.check(new.configuration)
        operation = once(intake.create_agent(new, self._ids), idempotency.of(request), rows.Agent)
        created = await self._writer.write(operation)
        # As it was when it was made: nobody was connected yet, and nothing done.
        data = agent_messages.agent(created.answer, counts.AgentTotals(), [], self._clock.monotonic(), 0.0)
        return agents_pb2.CreateAgentResponse(data=data, idempotent_replayed=created.is_replayed)

    async def GetAgent(self, request: agents_pb2.GetAgentRequest, context: Any) -> agents_pb2.GetAgentResponse:
        """Shows one agent."""
        agent = await self._existing(request.agent_id)
        return agents_pb2.GetAgentResponse(data=await self._detail(agent))

    async def ListAgents(self, request: agents_pb2.ListAgentsRequest, context: Any) -> agents_pb2.ListAgentsResponse:
        """Lists agents."""
        project_id = calls.current().project_id
        asked = pages.keyset(request, request.starting_after)
        chosen = AgentFilter(
            status=messages.enum_name(agents_pb2.AgentStatus, request.status) if request.HasField("status") else None,
            type=request.type if request.HasField("type") else None,
            environment=request.environment if request.HasField("environment") else None,
        )
        found = await agents.page(
            self._reader,
            project_id,
            chosen,
            page=asked.page,
            limit=asked.limit,
            starting_after=asked.starting_after,
        )
        return agents_pb2.ListAgentsResponse(
            data=await self._messages(project_id, found.rows), pagination=asked.pagination(found)
        )

    async def UpdateAgent(self, request: agents_pb2.UpdateAgentRequest, context: Any) -> agents_pb2.UpdateAgentResponse:
        """Changes an agent."""
        call = calls.current()
        update = AgentUpdate(
            name=request.name if request.HasField("name") else None,
            configuration=request.configuration if request.HasField("configuration") else None,
            environment=request.environment if request.HasField("environment") else None,
        )
        if update.configuration is not None:
            configuration.check(update.configuration)
        key = AgentKey(call.project_id, request.agent_id)
        operation = administration.update(key, update, self._fleet.configure)
        agent = await self._writer.write(operation)
        return agents_pb2.UpdateAgentResponse(data=await self._detail(agent))

    async def DeleteAgent(self, request: agents_pb2.DeleteAgentRequest, context: Any) -> agents_pb2.DeleteAgentResponse:
        """Deletes an agent."""
        call = calls.current()
        existing = await self._existing(request.agent_id)
        key = AgentKey(call.project_id, existing.id)

        def gone(agent: rows.Agent) -> None:
            self._fleet.dismiss(agent)
            self._clearing.add(key)

        operation = administration.delete(key, existing.registered_as, existing.type, gone)
        deleted = await self._writer.write(operation)
        response = agents_pb2.DeleteAgentResponse(message="Agent deleted successfully")
        response.deleted_at.FromMicroseconds(deleted.deleted_at or 0)
        return response

    async def PauseAgent(self, request: agents_pb2.PauseAgentRequest, context: Any) -> agents_pb2.PauseAgentResponse:
        """Gives an agent no new tasks."""
        return agents_pb2.PauseAgentResponse(data=await self._set_mode(request.agent_id, states.PAUSED))

    async def DrainAgent(self, request: agents_pb2.DrainAgentRequest, context: Any) -> agents_pb2.DrainAgentResponse:
        """Gives an agent no new tasks, for good-bye."""
        return agents_pb2.DrainAgentResponse(data=await self._set_mode(request.agent_id, states.DRAINING))

    async def ResumeAgent(self, request: agents_pb2.ResumeAgentRequest, context: Any) -> agents_pb2.ResumeAgentResponse:
        """Ends a pause or a drain."""
        return agents_pb2.ResumeAgentResponse(data=await self._set_mode(request.agent_id, states.SERVING))

    async def _set_mode(self, agent_id: str, mode: str) -> agents_pb2.Agent:
        call = calls.current()
        key = AgentKey(call.project_id, agent_id)
        operation = administration.set_mode(key, mode, self._registry.is_present)
        return await self._detail(await self._writer.write(operation))

    async def _existing(self, agent_id: str) -> rows.Agent:
        agent = await agents.get(self._reader, calls.current().project_id, agent_id)
        if agent is None:
            raise NotFound("there is no such agent")
        return agent

    async def _detail(self, agent: rows.Agent) -> agents_pb2.Agent:
        message = (await self._messages(agent.project_id, [agent]))[0]
        message.task_types.extend(agent_messages.task_types(self._registry.of(AgentKey(agent.project_id, agent.id))))
        return message

    async def _messages(self, project_id: str, found: Sequence[rows.Agent]) -> list[agents_pb2.Agent]:
        totals = await counts.of_agents(self._reader, project_id, [agent.id for agent in found])
        monotonic = self._clock.monotonic()
        return [
            agent_messages.agent(
                agent,
                totals[agent.id],
                self._registry.of(AgentKey(project_id, agent.id)),
                monotonic,
                self._registry.lease,
            )
            for agent in found
        ]

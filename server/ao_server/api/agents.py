"""AgentService."""

from collections.abc import Sequence
from typing import Any

from agent_orchestration.v1 import agents_pb2, agents_pb2_grpc
from ao_server.api import calls, messages
from ao_server.engine import intake
from ao_server.engine.clock import Clock
from ao_server.engine.ids import Ids
from ao_server.engine.registry import Registry
from ao_server.engine.sessions import AgentKey
from ao_server.errors import NotFound
from ao_server.store import agents, counts, rows
from ao_server.store.reader import Reader
from ao_server.store.writer import Writer

DEFAULT_LIMIT = 20


class AgentServicer(agents_pb2_grpc.AgentServiceServicer):
    """Registers agents and shows them."""

    def __init__(self, writer: Writer, reader: Reader, registry: Registry, clock: Clock, ids: Ids) -> None:
        self._writer = writer
        self._reader = reader
        self._registry = registry
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
        intake.check_configuration(new.configuration)
        agent = await self._writer.submit(intake.create_agent(new, self._ids), call.timeout)
        return agents_pb2.CreateAgentResponse(data=self._message(agent, counts.AgentTotals()))

    async def GetAgent(self, request: agents_pb2.GetAgentRequest, context: Any) -> agents_pb2.GetAgentResponse:
        """Shows one agent."""
        project_id = calls.current().project_id
        agent = await agents.get(self._reader, project_id, request.agent_id)
        if agent is None:
            raise NotFound("there is no such agent")
        return agents_pb2.GetAgentResponse(data=(await self._messages(project_id, [agent]))[0])

    async def ListAgents(self, request: agents_pb2.ListAgentsRequest, context: Any) -> agents_pb2.ListAgentsResponse:
        """Lists agents."""
        project_id = calls.current().project_id
        page = request.page or 1
        limit = request.limit or DEFAULT_LIMIT
        found = await agents.page(
            self._reader,
            project_id,
            status=messages.enum_name(agents_pb2.AgentStatus, request.status) if request.HasField("status") else None,
            type_=request.type if request.HasField("type") else None,
            page=page,
            limit=limit,
        )
        return agents_pb2.ListAgentsResponse(
            data=await self._messages(project_id, found.rows), pagination=messages.pagination(found, page, limit)
        )

    async def _messages(self, project_id: str, found: Sequence[rows.Agent]) -> list[agents_pb2.Agent]:
        totals = await counts.of_agents(self._reader, project_id, [agent.id for agent in found])
        return [self._message(agent, totals[agent.id]) for agent in found]

    def _message(self, agent: rows.Agent, totals: counts.AgentTotals) -> agents_pb2.Agent:
        instances = self._registry.of(AgentKey(agent.project_id, agent.id))
        return messages.agent(agent, totals, instances, self._clock.monotonic(), self._registry.lease)

"""The agents that may take a task, as they are now."""

from ao_server.engine.placement import Taker
from ao_server.engine.registry import Registry
from ao_server.store import agents, rows
from ao_server.store.reader import Reader


async def of(task: rows.Task, reader: Reader, registry: Registry) -> list[Taker]:
    """The agent that it names, or all of its type."""
    if task.agent_id:
        agent = await agents.get(reader, task.project_id, task.agent_id)
        found = [agent] if agent is not None else []
    else:
        found = await agents.of_type(reader, task.project_id, task.agent_type)
    return [registry.taker(agent) for agent in found]

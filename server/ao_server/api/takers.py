"""The agents that may take a task, as they are now."""

from collections.abc import Iterable, Mapping

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


async def of_each(tasks: Iterable[rows.Task], reader: Reader, registry: Registry) -> Mapping[str, list[Taker]]:
    """Those of each task of one project, by its id. What tasks have in common is read once."""
    found: dict[tuple[str, str], list[Taker]] = {}
    by_task: dict[str, list[Taker]] = {}
    for task in tasks:
        wanted = (task.agent_id, task.agent_type)
        if wanted not in found:
            found[wanted] = await of(task, reader, registry)
        by_task[task.id] = found[wanted]
    return by_task

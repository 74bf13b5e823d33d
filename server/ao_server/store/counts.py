"""Reads of the counters: totals of lists, agents' metrics, health figures. Never a scan of tasks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from ao_server.store import tables
from ao_server.store.reader import Reader

_COUNT: Any = tables.TaskCount
_ROLLUP: Any = tables.Rollup
MINUTES_A_DAY = 24 * 60


@dataclass(slots=True)
class AgentTotals:
    """Finished tasks of an agent; `duration` is the sum over completed ones in microseconds."""

    completed: int = 0
    failed: int = 0
    duration: int = 0


async def tasks(
    connection: AsyncConnection,
    project_id: str,
    agent_id: str | None = None,
    status: str | None = None,
    priority: int | None = None,
) -> int:
    """How many tasks match."""
    where = [_COUNT.project_id == project_id]
    if agent_id is not None:
        where.append(_COUNT.agent_id == agent_id)
    if status is not None:
        where.append(_COUNT.status == status)
    if priority is not None:
        where.append(_COUNT.priority == priority)
    statement = select(func.coalesce(func.sum(_COUNT.tasks), 0)).where(*where)
    return int((await connection.execute(statement)).scalar_one())


async def of_agents(reader: Reader, project_id: str, agent_ids: Sequence[str]) -> dict[str, AgentTotals]:
    """Totals by agent; an agent without finished tasks has zeros."""
    totals = {agent_id: AgentTotals() for agent_id in agent_ids}
    statement = (
        select(_COUNT.agent_id, _COUNT.status, func.sum(_COUNT.tasks), func.sum(_COUNT.duration))
        .where(
            _COUNT.project_id == project_id,
            _COUNT.agent_id.in_(agent_ids),
            _COUNT.status.in_(("completed", "failed")),
        )
        .group_by(_COUNT.agent_id, _COUNT.status)
    )
    async with reader.connect() as connection:
        for agent_id, status, count, duration in await connection.execute(statement):
            if status == "completed":
                totals[agent_id].completed = int(count)
                totals[agent_id].duration = int(duration)
            else:
                totals[agent_id].failed = int(count)
    return totals


async def completed_today(connection: AsyncConnection, project_id: str, minute: int) -> int:
    """Tasks completed since the midnight (UTC) before `minute`, minutes since 1970."""
    midnight = minute - minute % MINUTES_A_DAY
    statement = select(func.coalesce(func.sum(_ROLLUP.completed), 0)).where(
        _ROLLUP.project_id == project_id, _ROLLUP.minute >= midnight
    )
    return int((await connection.execute(statement)).scalar_one())

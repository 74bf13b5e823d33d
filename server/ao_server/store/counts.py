"""Reads of the counters: totals of lists, agents' metrics, health figures. Never a scan of tasks."""

from collections.abc import Collection, Sequence
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
    """Finished and running tasks of an agent; `duration` is the sum over completed ones in microseconds."""

    completed: int = 0
    failed: int = 0
    running: int = 0
    duration: int = 0


async def of_agents(reader: Reader, project_id: str, agent_ids: Sequence[str]) -> dict[str, AgentTotals]:
    """Totals by agent; an agent without finished tasks has zeros."""
    totals = {agent_id: AgentTotals() for agent_id in agent_ids}
    statement = (
        select(_COUNT.agent_id, _COUNT.status, func.sum(_COUNT.tasks), func.sum(_COUNT.duration))
        .where(
            _COUNT.project_id == project_id,
            _COUNT.agent_id.in_(agent_ids),
            _COUNT.status.in_(("completed", "failed", "running")),
        )
        .group_by(_COUNT.agent_id, _COUNT.status)
    )
    async with reader.connect() as connection:
        for agent_id, status, count, duration in await connection.execute(statement):
            setattr(totals[agent_id], status, int(count))
            if status == "completed":
                totals[agent_id].duration = int(duration)
    return totals


async def mean_durations(
    reader: Reader, project_id: str, kinds: Collection[tuple[str, str]]
) -> dict[tuple[str, str], int]:
    """By type of agent and of task: microseconds from start to completion of completed tasks; none where none is."""
    statement = (
        select(_COUNT.agent_type, _COUNT.type, func.sum(_COUNT.duration), func.sum(_COUNT.tasks))
        .where(
            _COUNT.project_id == project_id,
            _COUNT.agent_type.in_({agent_type for agent_type, _ in kinds}),
            _COUNT.status == "completed",
        )
        .group_by(_COUNT.agent_type, _COUNT.type)
    )
    means: dict[tuple[str, str], int] = {}
    async with reader.connect() as connection:
        for agent_type, type_, took, tasks in await connection.execute(statement):
            if tasks > 0:
                means[agent_type, type_] = int(took) // int(tasks)
    return means


@dataclass(frozen=True, slots=True)
class PendingType:
    """Tasks of one type that wait for an agent, or, where `agent_id` is empty, for any agent of a type."""

    project_id: str
    agent_id: str
    agent_type: str
    type: str


async def pending_types(reader: Reader) -> set[PendingType]:
    """What waits, in every project."""
    statement = select(_COUNT.project_id, _COUNT.agent_id, _COUNT.agent_type, _COUNT.type).where(
        _COUNT.status == "pending", _COUNT.tasks > 0
    )
    async with reader.connect() as connection:
        return {PendingType(*found) for found in await connection.execute(statement)}


async def agents_with_unfinished(reader: Reader) -> set[tuple[str, str]]:
    """Project and id of every agent that has pending or running tasks."""
    statement = select(_COUNT.project_id, _COUNT.agent_id).where(
        _COUNT.status.in_(("pending", "running")), _COUNT.tasks > 0, _COUNT.agent_id != ""
    )
    async with reader.connect() as connection:
        return {(project_id, agent_id) for project_id, agent_id in await connection.execute(statement)}


@dataclass(frozen=True, slots=True)
class Finished:
    """What finished in the part of a period that begins at `minute`; `duration` in microseconds, of completed ones."""

    minute: int
    completed: int
    failed: int
    duration: int


async def history(reader: Reader, project_id: str, since: int, part: int) -> list[Finished]:
    """What finished since a minute, by parts of so many minutes, oldest first; empty parts are left out."""
    begin = (_ROLLUP.minute - _ROLLUP.minute % part).label("begin")
    sums = [func.sum(column) for column in (_ROLLUP.completed, _ROLLUP.failed, _ROLLUP.duration)]
    statement = (
        select(begin, *sums).where(_ROLLUP.project_id == project_id, _ROLLUP.minute >= since).group_by(begin)
    ).order_by(begin)
    async with reader.connect() as connection:
        return [Finished(*(int(value) for value in found)) for found in await connection.execute(statement)]


async def completed_today(connection: AsyncConnection, project_id: str, minute: int) -> int:
    """Tasks completed since the midnight (UTC) before `minute`, minutes since 1970."""
    midnight = minute - minute % MINUTES_A_DAY
    statement = select(func.coalesce(func.sum(_ROLLUP.completed), 0)).where(
        _ROLLUP.project_id == project_id, _ROLLUP.minute >= midnight
    )
    return int((await connection.execute(statement)).scalar_one())

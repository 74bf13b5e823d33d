"""Reads of agents."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from ao_server.errors import Invalid
from ao_server.store import rows, tables
from ao_server.store.reader import Page, Reader

_AGENT: Any = tables.Agent


async def get(reader: Reader, project_id: str, agent_id: str) -> rows.Agent | None:
    """One agent that is not deleted."""
    return await reader.one(rows.Agent, *_there(project_id), _AGENT.id == agent_id)


async def of_type(reader: Reader, project_id: str, type_: str) -> Sequence[rows.Agent]:
    """The agents of a type."""
    async with reader.connect() as connection:
        return await reader.rows(connection, rows.Agent, *_there(project_id), _AGENT.type == type_, order=_AGENT.id)


@dataclass(frozen=True, slots=True)
class AgentFilter:
    """Which agents a list shows."""

    status: str | None = None
    type: str | None = None
    environment: str | None = None


async def page(
    reader: Reader, project_id: str, chosen: AgentFilter, *, page: int, limit: int, starting_after: str | None = None
) -> Page[rows.Agent]:
    """A page of agents, newest first, by its number or behind an agent. Invalid when that agent does not exist."""
    where = _there(project_id)
    for name in ("status", "type", "environment"):
        wanted = getattr(chosen, name)
        if wanted is not None:
            where.append(getattr(_AGENT, name) == wanted)
    async with reader.connect() as connection:
        total = (await connection.execute(select(func.count()).select_from(tables.Agent).where(*where))).scalar_one()
        if starting_after is not None:
            if not await reader.rows(connection, rows.Agent, *_there(project_id), _AGENT.id == starting_after):
                raise Invalid.field("starting_after", "there is no such agent")
            where.append(_AGENT.id < starting_after)
        found = await reader.rows(
            connection, rows.Agent, *where, order=_AGENT.id.desc(), limit=limit, offset=(page - 1) * limit
        )
    return Page(found, total)


async def active_types(reader: Reader, project_id: str, types: Collection[str]) -> set[str]:
    """Those of the types of which an agent is active."""
    where = (*_there(project_id), _AGENT.type.in_(types), _AGENT.status == "active")
    async with reader.connect() as connection:
        return set((await connection.execute(select(_AGENT.type).where(*where).distinct())).scalars())


async def count_active(connection: AsyncConnection, project_id: str) -> int:
    """How many agents are active."""
    where = (*_there(project_id), _AGENT.status == "active")
    return (await connection.execute(select(func.count()).select_from(tables.Agent).where(*where))).scalar_one()


async def with_status(reader: Reader, status: str) -> Sequence[rows.Agent]:
    """Every agent of every project that has this status."""
    async with reader.connect() as connection:
        return await reader.rows(connection, rows.Agent, _AGENT.status == status, _AGENT.deleted_at.is_(None))


async def deleted(reader: Reader) -> set[tuple[str, str]]:
    """Project and id of every deleted agent."""
    statement = select(_AGENT.project_id, _AGENT.id).where(_AGENT.deleted_at.is_not(None))
    async with reader.connect() as connection:
        return {(project_id, agent_id) for project_id, agent_id in await connection.execute(statement)}


def _there(project_id: str) -> list[ColumnElement[bool]]:
    return [_AGENT.project_id == project_id, _AGENT.deleted_at.is_(None)]

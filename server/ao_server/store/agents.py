"""Reads of agents."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from ao_server.store import rows, tables
from ao_server.store.reader import Page, Reader

_AGENT: Any = tables.Agent


async def get(reader: Reader, project_id: str, agent_id: str) -> rows.Agent | None:
    """One agent."""
    return await reader.one(rows.Agent, _AGENT.project_id == project_id, _AGENT.id == agent_id)


async def page(
    reader: Reader, project_id: str, *, status: str | None, type_: str | None, page: int, limit: int
) -> Page[rows.Agent]:
    """A page of agents, newest first."""
    where = [_AGENT.project_id == project_id]
    if status is not None:
        where.append(_AGENT.status == status)
    if type_ is not None:
        where.append(_AGENT.type == type_)
    async with reader.connect() as connection:
        total = (await connection.execute(select(func.count()).select_from(tables.Agent).where(*where))).scalar_one()
        found = await reader.rows(
            connection, rows.Agent, *where, order=_AGENT.id.desc(), limit=limit, offset=(page - 1) * limit
        )
    return Page(found, total)


async def count_active(connection: AsyncConnection, project_id: str) -> int:
    """How many agents are active."""
    where = (_AGENT.project_id == project_id, _AGENT.status == "active")
    return (await connection.execute(select(func.count()).select_from(tables.Agent).where(*where))).scalar_one()


async def with_status(reader: Reader, status: str) -> Sequence[rows.Agent]:
    """Every agent of every project that has this status."""
    async with reader.connect() as connection:
        return await reader.rows(connection, rows.Agent, _AGENT.status == status)

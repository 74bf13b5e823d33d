"""Reads of projects."""

from typing import Any

from sqlalchemy import func, select

from ao_server.store import rows, tables
from ao_server.store.reader import Page, Reader

_PROJECT: Any = tables.Project


async def get(reader: Reader, project_id: str) -> rows.Project | None:
    """One project."""
    return await reader.one(rows.Project, _PROJECT.id == project_id)


async def page(reader: Reader, *, only: str | None, page: int, limit: int) -> Page[rows.Project]:
    """A page of all projects, or of the only one, newest first."""
    where = [] if only is None else [_PROJECT.id == only]
    counted = select(func.count()).select_from(tables.Project).where(*where)
    async with reader.connect() as connection:
        total = (await connection.execute(counted)).scalar_one()
        found = await reader.rows(
            connection, rows.Project, *where, order=_PROJECT.id.desc(), limit=limit, offset=(page - 1) * limit
        )
    return Page(found, total)

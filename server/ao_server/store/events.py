"""Reads of the event feed."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import func, select

from ao_server.store import rows, tables
from ao_server.store.reader import Reader

_EVENT: Any = tables.Event
_FEED: Any = tables.Feed


async def feed(reader: Reader, project_id: str) -> rows.Feed | None:
    """The head of a project's feed, None when there is no such project."""
    return await reader.one(rows.Feed, _FEED.project_id == project_id)


async def feeds(reader: Reader) -> Sequence[rows.Feed]:
    """The feeds of all projects."""
    async with reader.connect() as connection:
        return await reader.rows(connection, rows.Feed)


async def after(reader: Reader, project_id: str, position: int, limit: int) -> list[rows.Event]:
    """The events behind a position, in order."""
    async with reader.connect() as connection:
        return await reader.rows(
            connection,
            rows.Event,
            _EVENT.project_id == project_id,
            _EVENT.position > position,
            order=_EVENT.position,
            limit=limit,
        )


async def older_than(reader: Reader, project_id: str, time: int, limit: int) -> int | None:
    """The position of the last of the first `limit` events that are older than a time (microseconds); None when none
    is.
    """
    first = select(_EVENT.position, _EVENT.timestamp).where(_EVENT.project_id == project_id)
    oldest = first.order_by(_EVENT.position).limit(limit).subquery()
    statement = select(func.max(oldest.c.position)).where(oldest.c.timestamp < time)
    async with reader.connect() as connection:
        return (await connection.execute(statement)).scalar_one()

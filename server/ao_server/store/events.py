"""Reads of the event feed."""

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from sqlalchemy import func, select

from ao_server.store import portions, rows, tables
from ao_server.store.reader import Reader

_PORTION: Any = tables.EventPortion
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
    of_project = _PORTION.project_id == project_id
    # Where the last of them stands; there is none while the feed ends before it.
    end = select(func.min(_PORTION.last)).where(of_project, _PORTION.last >= position + limit).scalar_subquery()
    async with reader.connect() as connection:
        found = await reader.rows(
            connection,
            rows.EventPortion,
            of_project,
            _PORTION.last > position,
            _PORTION.last <= func.coalesce(end, position + limit),
            order=_PORTION.last,
        )
    events = [event for portion in found for event in portions.events_of(portion) if event.position > position]
    return events[:limit]


async def older_than(reader: Reader, project_id: str, time: int, limit: int) -> int | None:
    """The position of the last event of the first portions, at most `limit` of them, in which all events are older than
    a time (microseconds); None when there is no such portion.
    """
    first = select(_PORTION.last, _PORTION.timestamp).where(_PORTION.project_id == project_id)
    async with reader.connect() as connection:
        oldest = await connection.execute(first.order_by(_PORTION.last).limit(limit))
    old = [portion.last for portion in takewhile(lambda portion: portion.timestamp < time, oldest)]
    return old[-1] if old else None

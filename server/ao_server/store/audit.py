"""Reads of the audit log."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, func, select, text

from ao_server.errors import Invalid
from ao_server.store import rows, tables
from ao_server.store.reader import Page, Reader

SUCCESS: Final = "success"
_RECORD: Any = tables.AuditRecord


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which records are wanted. Ids are compared with `id_from` (inclusive) and `id_before` (exclusive): an id begins
    with its time.
    """

    actor_id: str | None = None
    action: str | None = None
    object_id: str | None = None
    outcome: str | None = None
    id_from: str | None = None
    id_before: str | None = None


async def page(
    reader: Reader, project_id: str, chosen: AuditFilter, *, page: int, limit: int, starting_after: str | None = None
) -> Page[rows.AuditRecord]:
    """A page of records, newest first, by its number or behind a record. Invalid when that record does not exist."""
    where = _where(project_id, chosen)
    counted = select(func.count()).select_from(tables.AuditRecord).where(*where)
    async with reader.connect() as connection:
        total = (await connection.execute(counted)).scalar_one()
        if starting_after is not None:
            known = (_RECORD.project_id == project_id, _RECORD.id == starting_after)
            if not await reader.rows(connection, rows.AuditRecord, *known):
                raise Invalid.field("starting_after", f"there is no record {starting_after}")
            where.append(_RECORD.id < starting_after)
        found = await reader.rows(
            connection, rows.AuditRecord, *where, order=_RECORD.id.desc(), limit=limit, offset=(page - 1) * limit
        )
    return Page(found, total)


async def portions(
    reader: Reader, project_id: str, chosen: AuditFilter, *, limit: int
) -> AsyncIterator[Sequence[rows.AuditRecord]]:
    """All records in portions, oldest first. No connection is held between two of them."""
    after = ""
    while True:
        async with reader.connect() as connection:
            where = (*_where(project_id, chosen), _RECORD.id > after)
            found = await reader.rows(connection, rows.AuditRecord, *where, order=_RECORD.id, limit=limit)
        if not found:
            return
        yield found
        after = found[-1].id


def _where(project_id: str, chosen: AuditFilter) -> list[ColumnElement[bool]]:
    where: list[ColumnElement[bool]] = [_RECORD.project_id == project_id]
    for name in ("actor_id", "action", "object_id", "outcome"):
        wanted = getattr(chosen, name)
        if wanted is not None:
            where.append(getattr(_RECORD, name) == wanted)
    if chosen.outcome not in (None, SUCCESS):
        # As their index says it.
        where.append(text(tables.REFUSED))  # pyright: ignore[reportArgumentType] - a condition
    if chosen.id_from is not None:
        where.append(_RECORD.id >= chosen.id_from)
    if chosen.id_before is not None:
        where.append(_RECORD.id < chosen.id_before)
    return where

"""Reads of what is kept for a time only."""

from sqlalchemy import select

from ao_server.store import rows
from ao_server.store.changes import Deletion
from ao_server.store.reader import Reader


async def has_any(reader: Reader, deletion: Deletion) -> bool:
    """Whether there is anything for it to take out."""
    columns = rows.TABLES[deletion.row].columns
    old = select(columns["project_id"]).where(
        columns["project_id"] == deletion.project_id, columns[deletion.column] <= deletion.until
    )
    async with reader.connect() as connection:
        return (await connection.execute(old.limit(1))).first() is not None

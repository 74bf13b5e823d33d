"""Reads of the steps of executions."""

from typing import Any

from sqlalchemy import func, select

from ao_server.store import workflow_tables
from ao_server.store.reader import Reader

_STEP: Any = workflow_tables.ExecutionStep


async def next_due_at(reader: Reader) -> int | None:
    """When the next step is due, None when none is."""
    async with reader.connect() as connection:
        statement = select(func.min(_STEP.due_at)).where(_STEP.due_at.is_not(None))
        return (await connection.execute(statement)).scalar_one()

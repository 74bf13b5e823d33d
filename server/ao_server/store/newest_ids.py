"""Which ids were made last, whatever process made them."""

from typing import Any, Final

from sqlalchemy import func, select

from ao_server.store import tables, workflow_tables
from ao_server.store.reader import Reader

_PROJECT: Any = tables.Project
# Those whose order what is undecided goes by.
_MADE: Final[tuple[Any, ...]] = (tables.Task, workflow_tables.Execution)


async def of_each_kind(reader: Reader) -> list[str]:
    """The greatest ids of tasks and of executions, of those there are."""
    async with reader.connect() as connection:
        found: list[str | None] = []
        for table in _MADE:
            # One look into the index for each project, as ids are in order only within one.
            of_project = select(func.max(table.id)).where(table.project_id == _PROJECT.id).scalar_subquery()
            found += (await connection.execute(select(of_project))).scalars()
        return [each for each in found if each is not None]

"""Reads, as rows through the asynchronous engine or as tuples from the driver. They see what is committed, never the
batch in the making.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import ColumnElement, select
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection

from ao_server.errors import Unavailable
from ao_server.store import rows
from ao_server.store.database import Database
from ao_server.store.faults import is_away

RowType = TypeVar("RowType")


@dataclass(frozen=True, slots=True)
class Page(Generic[RowType]):
    """One page of a list and the number of matches in all pages."""

    rows: Sequence[RowType]
    total: int


class Reader:
    """Opens read connections and turns what they find into rows."""

    def __init__(self, database: Database) -> None:
        self.database = database

    @asynccontextmanager
    async def connect(self) -> AsyncGenerator[AsyncConnection, None]:
        """A connection for one read. Unavailable when the store is away or all connections stay busy."""
        try:
            async with self.database.reading.connect() as connection:
                yield connection
        except PoolTimeout:
            raise Unavailable("too many reads are waiting") from None
        except Exception as error:
            if is_away(error):
                raise Unavailable("the store cannot be read now") from error
            raise

    async def fetch(self, sql: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
        """The rows of one statement in the driver's own text (`Database.text`). Unavailable as for `connect`."""
        try:
            return await self.database.direct.fetch(sql, parameters)
        except Exception as error:
            if is_away(error):
                raise Unavailable("the store cannot be read now") from error
            raise

    async def rows(
        self,
        connection: AsyncConnection,
        row: type[RowType],
        *where: ColumnElement[bool],
        order: ColumnElement[Any] | None = None,
        limit: int | None = None,
        offset: int = 0,
    ) -> list[RowType]:
        """Rows that match all conditions."""
        statement = select(*rows.TABLES[row].columns).where(*where)
        if order is not None:
            statement = statement.order_by(order)
        if limit is not None:
            statement = statement.limit(limit).offset(offset)
        return [row(**found) for found in (await connection.execute(statement)).mappings()]

    async def one(self, row: type[RowType], *where: ColumnElement[bool]) -> RowType | None:
        """The row that matches, or None."""
        async with self.connect() as connection:
            found = await self.rows(connection, row, *where)
        return found[0] if found else None

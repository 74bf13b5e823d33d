"""Hot statements: written once with SQLAlchemy, compiled once per dialect, then given plain tuples.

Core would build a dict per row and the ORM an object; handing the driver tuples costs half of the first and a tenth of
the second. A column costs as much as a small row, so inserts leave out what is null and updates set what has changed.
"""

from collections.abc import Callable, Iterable
from functools import cached_property
from itertools import compress, repeat
from operator import is_not, itemgetter, ne, not_
from typing import Any

from sqlalchemy import Column, Dialect, Table, bindparam, select

from ao_server.store import rows
from ao_server.store.shapes import PostgresShapes, Shape, Shapes, SqliteShapes, Values, reading


class TableStatements:
    """The statements of one table and how a row turns into their parameters."""

    def __init__(self, row: type[Any], dialect: Dialect) -> None:
        self.row = row
        self.table: Table = rows.TABLES[row]
        self._dialect = dialect
        self.columns: list[Column[Any]] = list(self.table.columns)
        self.key = [column.name for column in self.table.primary_key.columns]
        self.changing = [column.name for column in self.columns if not column.info.get("fixed")]
        self._names = names = [column.name for column in self.columns]
        self._key_places = [names.index(name) for name in self.key]
        # The key within a row's values.
        self.key_of: Callable[[Values], tuple[str | int, ...]] = _taking(self._key_places)
        self.key_of_row = reading(self.key)
        self._changing_of_row = reading(self.changing)
        # PostgreSQL is given whole rows: what is null costs it nothing.
        is_sqlite = dialect.name == "sqlite"
        self._nullable = [column.name for column in self.columns if column.nullable and is_sqlite]
        self._nullable_of_row = reading(self._nullable)
        self._shapes: Shapes = SqliteShapes(row, dialect) if is_sqlite else PostgresShapes(row, dialect)
        self._inserts: dict[Values, Shape] = {}
        self._updates: dict[Values, Shape] = {}

    def insert_of(self, row: Any) -> Shape:
        """Inserts a row with nulls where this one has them."""
        given = tuple(map(is_not, self._nullable_of_row(row), repeat(None)))
        shape = self._inserts.get(given)
        if shape is None:
            left_out = set(compress(self._nullable, map(not_, given)))
            names = [name for name in self._names if name not in left_out]
            shape = self._inserts[given] = self._shapes.insert(names)
        return shape

    def update_of(self, before: Any, after: Any) -> Shape | None:
        """Sets the columns in which two rows differ; None when none that can change does."""
        changed = tuple(map(ne, self._changing_of_row(before), self._changing_of_row(after)))
        shape = self._updates.get(changed)
        if shape is None:
            names = list(compress(self.changing, changed))
            if not names:
                return None
            shape = self._updates[changed] = self._shapes.update(names)
        return shape

    @cached_property
    def increment(self) -> Shape:
        """Inserts a row or adds its values to the one with its key."""
        return self._shapes.increment(self._names, self.changing)

    @cached_property
    def select_by_last(self) -> str:
        """Rows that share all of their key but its last column, of which a list is given (see
        `Database.list_parameter`); locked in its order.
        """
        *front, last = [f'"{name}"' for name in self.key]
        mark, among, rest = "?", "IN (SELECT value FROM json_each(?))", ""
        if self._dialect.name == "postgresql":
            mark, among, rest = "%s", "= ANY(%s)", f" ORDER BY {last} FOR UPDATE"
        names = ", ".join(f'"{name}"' for name in self._names)
        same = "".join(f"{name} = {mark} AND " for name in front)
        return f"SELECT {names} FROM {self.table.name} WHERE {same}{last} {among}{rest}"

    @cached_property
    def select_by_key(self) -> str:
        """One row by its whole key, locked."""
        statement = select(*self.columns)
        for name in self.key:
            statement = statement.where(self.table.columns[name] == bindparam(name))
        return self._text(statement.with_for_update())

    def delete_until(self, column: str) -> str:
        """Deletes the first rows of a project by a column; parameters are the project, the last value and a limit."""
        mark = "%s" if self._dialect.name == "postgresql" else "?"
        key = ", ".join(f'"{name}"' for name in self.key)
        old = (
            f'SELECT {key} FROM {self.table.name} WHERE "{self.key[0]}" = {mark} AND "{column}" <= {mark}'
            f' ORDER BY "{column}" LIMIT {mark}'
        )
        return f"DELETE FROM {self.table.name} WHERE ({key}) IN ({old})"

    def _text(self, statement: Any) -> str:
        return str(statement.compile(dialect=self._dialect))


def _taking(places: Iterable[int]) -> Callable[[Values], Values]:
    """What takes the values at these places, as a tuple even where it is one."""
    wanted = list(places)
    if not wanted:
        return lambda values: ()
    if len(wanted) == 1:
        (place,) = wanted
        return lambda values: (values[place],)
    return itemgetter(*wanted)

"""Hot statements: written once with SQLAlchemy, compiled once per dialect, then given plain tuples.

Core would build a dict per row and the ORM an object; handing the driver tuples costs half of the first and a tenth of
the second. A column costs as much as a small row, so inserts leave out what is null and updates set what has changed.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from itertools import repeat
from operator import is_not, itemgetter, ne
from typing import Any, Final, NamedTuple

from sqlalchemy import Column, Dialect, Table, bindparam, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from ao_server.store import rows

Values = tuple[Any, ...]

ROWS_TOGETHER: Final = 16


class Shape(NamedTuple):
    """A statement for some of the columns, and what takes its parameters out of a row's values.

    `together`: the same for ROWS_TOGETHER rows, where the driver has no better way. SQLite's gives up the interpreter's
    lock around each statement, and gets it back only once the event loop lets go of it; and an update of many rows by
    one statement costs little more than half.
    """

    sql: str
    parameters: Callable[[Values], Values]
    together: str | None


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
        self._nullable_of = _taking(place for place, column in enumerate(self.columns) if column.nullable)
        self._inserts: dict[Values, Shape] = {}
        self._updates: dict[Values, Shape] = {}

    def insert_of(self, values: Values) -> Shape:
        """Inserts a row with nulls where this one has them."""
        given = tuple(map(is_not, self._nullable_of(values), repeat(None)))
        shape = self._inserts.get(given)
        if shape is None:
            shape = self._inserts[given] = self._insert(
                [place for place, value in enumerate(values) if value is not None]
            )
        return shape

    def update_of(self, before: Values, after: Values) -> Shape | None:
        """Sets the columns that differ; None when none that can change does."""
        changed = tuple(map(ne, before, after))
        shape = self._updates.get(changed)
        if shape is None:
            places = [place for place, differs in enumerate(changed) if differs and self._names[place] in self.changing]
            if not places:
                return None
            shape = self._updates[changed] = self._update(places)
        return shape

    @cached_property
    def increment(self) -> str:
        """Inserts a row or adds its values to the one with its key; parameters in column order."""
        dialect_insert = postgresql.insert if self._dialect.name == "postgresql" else sqlite.insert
        statement = dialect_insert(self.table).values({name: bindparam(name) for name in self._names})
        sums = {name: self.table.columns[name] + statement.excluded[name] for name in self.changing}
        return self._text(statement.on_conflict_do_update(index_elements=self.key, set_=sums))

    @cached_property
    def select_by_ids(self) -> str:
        """Rows of one project by a list of ids (see `Database.list_parameter`), locked in the order of their ids."""
        project, identifier = (self.table.columns[name] for name in self.key)
        names = ", ".join(f'"{name}"' for name in self._names)
        select_those = f'SELECT {names} FROM {self.table.name} WHERE "{project.name}" ='
        if self._dialect.name == "postgresql":
            return f'{select_those} %s AND "{identifier.name}" = ANY(%s) ORDER BY "{identifier.name}" FOR UPDATE'
        return f'{select_those} ? AND "{identifier.name}" IN (SELECT value FROM json_each(?))'

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

    def _insert(self, places: Sequence[int]) -> Shape:
        names = [self._names[place] for place in places]
        sql = self._text(insert(self.table).values({name: bindparam(name) for name in names}))
        together = f"INSERT INTO {self.table.name} ({_listed(names)}) VALUES {_marks(len(names))}"
        return Shape(sql, _taking(places), together if self._is_sqlite else None)

    def _update(self, places: Sequence[int]) -> Shape:
        names = [self._names[place] for place in places]
        statement = update(self.table).values({name: bindparam(name) for name in names})
        for name in self.key:
            statement = statement.where(self.table.columns[name] == bindparam(f"key_{name}"))
        given = [*names, *(f"key_{name}" for name in self.key)]
        changes = ", ".join(f'"{name}" = given."{name}"' for name in names)
        same = " AND ".join(f'{self.table.name}."{name}" = given."key_{name}"' for name in self.key)
        together = (
            f"WITH given({_listed(given)}) AS (VALUES {_marks(len(given))})"
            f" UPDATE {self.table.name} SET {changes} FROM given WHERE {same}"
        )
        parameters = _taking([*places, *self._key_places])
        return Shape(self._text(statement), parameters, together if self._is_sqlite else None)

    @property
    def _is_sqlite(self) -> bool:
        return self._dialect.name == "sqlite"

    def _text(self, statement: Any) -> str:
        return str(statement.compile(dialect=self._dialect))


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def _marks(columns: int) -> str:
    row = f"({', '.join('?' * columns)})"
    return ", ".join([row] * ROWS_TOGETHER)


def _taking(places: Iterable[int]) -> Callable[[Values], Values]:
    """What takes the values at these places, as a tuple even where it is one."""
    wanted = list(places)
    if not wanted:
        return lambda values: ()
    if len(wanted) == 1:
        (place,) = wanted
        return lambda values: (values[place],)
    return itemgetter(*wanted)

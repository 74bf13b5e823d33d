"""Statements that write rows, many at once, as each database takes them best.

SQLite: the rows' values are parameters, of some rows together. The interpreter's lock is given up around each
statement, and is had again only once the event loop lets go of it; and an update of many rows by one statement costs
little more than half.

PostgreSQL: all rows are one parameter, as JSON. The driver spends a fifth of the time on it that it spends on a
statement for each row, the server half. Rows that never change have few columns, and texts that may be long: each
column is a parameter, a binary array, in which nothing is quoted and nothing parsed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter
from typing import Any, Final, Protocol

import msgspec
from sqlalchemy import Dialect, bindparam, insert, update
from sqlalchemy.dialects import sqlite

from ao_server.store import rows

Values = tuple[Any, ...]

ROWS_TOGETHER: Final = 16


class Shape(Protocol):
    """A statement for some columns of a table."""

    def write(self, cursor: Any, some: Sequence[Any]) -> None:
        """Executes it for these rows."""
        ...


class Shapes(Protocol):
    """The statements that write to one table."""

    def insert(self, names: Sequence[str]) -> Shape:
        """Inserts rows; what is not named is null."""
        ...

    def update(self, names: Sequence[str]) -> Shape:
        """Sets these columns in the rows with the same keys."""
        ...

    def increment(self, names: Sequence[str], added: Sequence[str]) -> Shape:
        """Inserts rows, or adds what is to be added to those with the same keys."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class _SqliteShape:
    """A statement for one row and, if there is one, for ROWS_TOGETHER rows; what takes the parameters out of a row."""

    sql: str
    together: str | None
    parameters: Callable[[Any], Values]

    def write(self, cursor: Any, some: Sequence[Any]) -> None:
        parameters = [*map(self.parameters, some)]
        done = 0
        while self.together is not None and len(parameters) - done >= ROWS_TOGETHER:
            several = parameters[done : done + ROWS_TOGETHER]
            cursor.execute(self.together, tuple(chain.from_iterable(several)))
            done += ROWS_TOGETHER
        if done < len(parameters):
            cursor.executemany(self.sql, parameters[done:])


class SqliteShapes:
    """Statements for SQLite."""

    def __init__(self, row: type[Any], dialect: Dialect) -> None:
        self._table = rows.TABLES[row]
        self._key = [column.name for column in self._table.primary_key.columns]
        self._dialect = dialect

    def insert(self, names: Sequence[str]) -> Shape:
        """As `Shapes.insert`."""
        sql = self._text(insert(self._table).values({name: bindparam(name) for name in names}))
        together = f"INSERT INTO {self._table.name} ({_listed(names)}) VALUES {_marks(len(names))}"
        return _SqliteShape(sql, together, reading(names))

    def update(self, names: Sequence[str]) -> Shape:
        """As `Shapes.update`."""
        statement = update(self._table).values({name: bindparam(name) for name in names})
        for name in self._key:
            statement = statement.where(self._table.columns[name] == bindparam(f"key_{name}"))
        given = [*names, *self._key]
        together = (
            f"WITH given({_listed(given)}) AS (VALUES {_marks(len(given))})"
            f" UPDATE {self._table.name} SET {_from_given(names)} FROM given WHERE {_same(self._table.name, self._key)}"
        )
        return _SqliteShape(self._text(statement), together, reading(given))

    def increment(self, names: Sequence[str], added: Sequence[str]) -> Shape:
        """As `Shapes.increment`."""
        statement = sqlite.insert(self._table).values({name: bindparam(name) for name in names})
        sums = {name: self._table.columns[name] + statement.excluded[name] for name in added}
        sql = self._text(statement.on_conflict_do_update(index_elements=self._key, set_=sums))
        return _SqliteShape(sql, None, reading(names))

    def _text(self, statement: Any) -> str:
        return str(statement.compile(dialect=self._dialect))


@dataclass(frozen=True, slots=True, eq=False)
class _PostgresShape:
    """A statement for PostgreSQL whose parameter is JSON of the rows, or of what `given` makes of them."""

    sql: str
    given: Callable[[Any], Any] | None = None

    def write(self, cursor: Any, some: Sequence[Any]) -> None:
        given = some if self.given is None else [*map(self.given, some)]
        cursor.execute(self.sql, (msgspec.json.encode(given).decode(),), prepare=True)


@dataclass(frozen=True, slots=True, eq=False)
class _ArraysShape:
    """A statement for PostgreSQL whose parameters are columns."""

    sql: str
    parameters: Callable[[Any], Values]

    def write(self, cursor: Any, some: Sequence[Any]) -> None:
        columns = zip(*map(self.parameters, some), strict=True)
        cursor.execute(self.sql, [*map(list[Any], columns)], prepare=True)


class PostgresShapes:
    """Statements for PostgreSQL."""

    def __init__(self, row: type[Any], dialect: Dialect) -> None:
        self._table = rows.TABLES[row]
        self._key = [column.name for column in self._table.primary_key.columns]
        self._types = {column.name: column.type.compile(dialect) for column in self._table.columns}
        self._never_changes = all(column.info.get("fixed") for column in self._table.columns)
        # Left out of the JSON (see `rows`).
        self._defaults = {
            field.name: field.default
            for field in msgspec.structs.fields(row)
            if field.default is not msgspec.NODEFAULT and field.default is not None
        }

    def insert(self, names: Sequence[str]) -> Shape:
        """As `Shapes.insert`."""
        if self._never_changes:
            arrays = ", ".join(f"%b::{self._types[name]}[]" for name in names)
            return _ArraysShape(
                f"INSERT INTO {self._table.name} ({_listed(names)}) SELECT * FROM unnest({arrays})", reading(names)
            )
        return _PostgresShape(self._insert(names))

    def update(self, names: Sequence[str]) -> Shape:
        """As `Shapes.update`."""
        columns = [*names, *self._key]
        where = _same(self._table.name, self._key)
        return _PostgresShape(
            f"UPDATE {self._table.name} SET {_from_given(names)} FROM {self._given(columns)} WHERE {where}",
            _part(columns),
        )

    def increment(self, names: Sequence[str], added: Sequence[str]) -> Shape:
        """As `Shapes.increment`."""
        sums = ", ".join(f'"{name}" = {self._table.name}."{name}" + excluded."{name}"' for name in added)
        return _PostgresShape(f"{self._insert(names)} ON CONFLICT ({_listed(self._key)}) DO UPDATE SET {sums}")

    def _insert(self, names: Sequence[str]) -> str:
        values = ", ".join(self._value(name) for name in names)
        return f"INSERT INTO {self._table.name} ({_listed(names)}) SELECT {values} FROM {self._given(names)}"

    def _given(self, names: Sequence[str]) -> str:
        columns = ", ".join(f'"{name}" {self._types[name]}' for name in names)
        return f"json_to_recordset(%s::json) AS given({columns})"

    def _value(self, name: str) -> str:
        if name not in self._defaults:
            return f'given."{name}"'
        default = self._defaults[name]
        literal = f"'{default}'" if isinstance(default, str) else default
        return f'COALESCE(given."{name}", {literal})'


def reading(names: Sequence[str]) -> Callable[[Any], Values]:
    """What reads these fields of a row, as a tuple even where it is one."""
    if not names:
        return lambda row: ()
    if len(names) == 1:
        (name,) = names
        return lambda row: (getattr(row, name),)
    return attrgetter(*names)


def _part(names: Sequence[str]) -> Callable[[Any], Any]:
    """What makes a smaller row of these fields of a row."""
    part, values = msgspec.defstruct("Part", names, gc=False), reading(names)
    return lambda row: part(*values(row))


def _from_given(names: Sequence[str]) -> str:
    return ", ".join(f'"{name}" = given."{name}"' for name in names)


def _same(table: str, key: Sequence[str]) -> str:
    return " AND ".join(f'{table}."{name}" = given."{name}"' for name in key)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def _marks(columns: int) -> str:
    row = f"({', '.join('?' * columns)})"
    return ", ".join([row] * ROWS_TOGETHER)

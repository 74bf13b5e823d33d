"""Hot statements: written once with SQLAlchemy, compiled once per dialect, then given plain tuples.

Core would build a dict per row and the ORM an object; handing the driver tuples costs half of the first and a tenth of
the second.
"""

from functools import cached_property
from typing import Any

from sqlalchemy import Column, Dialect, Table, bindparam, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from ao_server.store import rows


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
        self._update_places = [names.index(name) for name in self.changing] + self._key_places

    def make(self, values: tuple[Any, ...]) -> Any:
        """A row from its values in column order."""
        return self.row(**dict(zip(self._names, values, strict=True)))

    def key_of(self, values: tuple[Any, ...]) -> tuple[str | int, ...]:
        """The key within a row's values."""
        return tuple([values[place] for place in self._key_places])

    def update_parameters(self, values: tuple[Any, ...]) -> tuple[Any, ...]:
        """A row's values in the order that `update` takes them."""
        return tuple([values[place] for place in self._update_places])

    @cached_property
    def insert(self) -> str:
        """Inserts one row; parameters in column order."""
        return self._text(insert(self.table).values({column.name: bindparam(column.name) for column in self.columns}))

    @cached_property
    def update(self) -> str:
        """Sets every column that may change; parameters are those columns, then the key."""
        statement = update(self.table).values({name: bindparam(name) for name in self.changing})
        for name in self.key:
            statement = statement.where(self.table.columns[name] == bindparam(f"key_{name}"))
        return self._text(statement)

    @cached_property
    def increment(self) -> str:
        """Inserts a row or adds its values to the one with its key; parameters in column order."""
        dialect_insert = postgresql.insert if self._dialect.name == "postgresql" else sqlite.insert
        statement = dialect_insert(self.table).values({column.name: bindparam(column.name) for column in self.columns})
        sums = {name: self.table.columns[name] + statement.excluded[name] for name in self.changing}
        return self._text(statement.on_conflict_do_update(index_elements=self.key, set_=sums))

    @cached_property
    def select_by_ids(self) -> str:
        """Rows of one project by a list of ids (see `Database.list_parameter`), locked in the order of their ids."""
        project, identifier = (self.table.columns[name] for name in self.key)
        names = ", ".join(f'"{column.name}"' for column in self.columns)
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

    def _text(self, statement: Any) -> str:
        return str(statement.compile(dialect=self._dialect))

"""One transaction: loads the rows of many operations, lets each decide in turn, and writes what they decided."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeVar

from sqlalchemy import Connection

from ao_server.errors import Problem
from ao_server.store import rows
from ao_server.store.changes import Change, Changes, Deletion, Key, Operation
from ao_server.store.database import Database
from ao_server.store.rows import values_of
from ao_server.store.statements import TableStatements

RowType = TypeVar("RowType")

LOADED_AT_ONCE = 500


class Statements:
    """The compiled statements of every table."""

    def __init__(self, database: Database) -> None:
        self.of = {row: TableStatements(row, database.dialect) for row in rows.TABLES}
        # Rows are locked and written table by table in this order, on every path: PostgreSQL then has no deadlocks.
        self.order = {row: place for place, row in enumerate(_LOCK_ORDER)}


_LOCK_ORDER: tuple[type[Any], ...] = (
    rows.IdempotencyKey,
    rows.Registration,
    rows.Credential,
    rows.Agent,
    rows.Task,
    rows.TaskLabel,
    rows.Payload,
    rows.Result,
    rows.LogLine,
    rows.TaskCount,
    rows.Rollup,
    rows.Feed,
    rows.Event,
)


@dataclass(frozen=True, slots=True)
class View:
    """The rows that one decision sees."""

    known: dict[Key, Any]
    selected: Sequence[tuple[Any, ...]]

    def get(self, row: type[RowType], *key: str | int) -> RowType | None:
        """The row as the decisions before left it, or None; KeyError when it was not asked for."""
        return self.known[Key(row, key)]


class Batch:
    """The rows of one transaction in memory, ahead of what is flushed.

    `run` may be called several times; a later call sees, in its selections too, what the earlier ones changed.
    """

    def __init__(self, connection: Connection, database: Database, statements: Statements, now: int) -> None:
        self.now = now
        self.events: list[rows.Event] = []
        self._connection = connection
        self._database = database
        self._statements = statements
        self._known: dict[Key, Any] = {}
        self._before: dict[Key, Any] = {}
        self._dirty: dict[Key, None] = {}
        self._inserted: set[Key] = set()
        self._increments: dict[Key, list[Any]] = {}
        self._deletions: list[Deletion] = []

    def run(self, operations: Sequence[Operation[Any]]) -> list[Any]:
        """Loads, decides and flushes; returns each operation's answer, or the Problem it raised."""
        self._load({key for operation in operations for key in operation.keys})
        answers: list[Any] = []
        for operation in operations:
            selected = self._select(operation)
            try:
                changes = operation.decide(View(self._known, selected), self.now)
            except Problem as problem:
                answers.append(problem)
            else:
                self._apply(changes)
                answers.append(changes.answer)
        self._flush_rows()
        return answers

    @property
    def changes(self) -> Iterator[Change]:
        """Every row that this transaction has changed so far."""
        for key, before in self._before.items():
            yield Change(before, self._known[key])

    @property
    def writes(self) -> bool:
        """Whether there is anything to write: what only looked proves nothing of the disk."""
        return bool(self._before or self._increments or self._deletions or self.events)

    def finish(self) -> None:
        """Writes the counters, takes out what is old, then adds the events, numbered under the lock of their feed."""
        self._flush_increments()
        for deletion in self._deletions:
            sql = self._statements.of[deletion.row].delete_until(deletion.column)
            self._execute(sql, [(deletion.project_id, deletion.until, deletion.limit)])
        for project_id, events in groupby(sorted(self.events, key=_project), key=_project):
            self._append(project_id, list(events))

    def _load(self, keys: Iterable[Key]) -> None:
        missing = sorted((key for key in keys if key not in self._known), key=self._lock_order)
        for (row, project_id), group in groupby(missing, key=lambda key: (key.row, key.values[0])):
            wanted = list(group)
            self._known.update(dict.fromkeys(wanted))
            statements = self._statements.of[row]
            if len(statements.key) != 2:
                for key in wanted:
                    self._remember(row, statements.select_by_key, key.values)
                continue
            for start in range(0, len(wanted), LOADED_AT_ONCE):
                ids = [key.values[1] for key in wanted[start : start + LOADED_AT_ONCE]]
                self._remember(row, statements.select_by_ids, (project_id, self._database.list_parameter(ids)))

    def _remember(self, row: type[Any], sql: str, parameters: tuple[Any, ...]) -> None:
        statements = self._statements.of[row]
        for values in self._connection.exec_driver_sql(sql, parameters):
            self._known[Key(row, statements.key_of(tuple(values)))] = statements.make(tuple(values))

    def _select(self, operation: Operation[Any]) -> list[tuple[Any, ...]]:
        selection = operation.selection
        if selection is None:
            return []
        found: list[tuple[Any, ...]] = []
        for values in self._connection.exec_driver_sql(selection.sql, tuple(selection.parameters)):
            parts: list[Any] = []
            start = 0
            for row in selection.rows:
                statements = self._statements.of[row]
                end = start + len(statements.columns)
                parts.append(self._current(statements, tuple(values[start:end])))
                start = end
            found.append(tuple(parts))
        return found

    def _current(self, statements: TableStatements, values: tuple[Any, ...]) -> Any:
        """The row in memory if there is one: it may be ahead of what was selected."""
        key = Key(statements.row, statements.key_of(values))
        if self._known.get(key) is None:
            self._known[key] = statements.make(values)
        return self._known[key]

    def _apply(self, changes: Changes[Any]) -> None:
        for row in changes.rows:
            key = self._key_of(row)
            self._before.setdefault(key, self._known.get(key))
            self._known[key] = row
            self._dirty[key] = None
        for row in changes.increments:
            statements = self._statements.of[type(row)]
            values = list(values_of(row))
            total = self._increments.setdefault(self._key_of(row), values)
            if total is not values:
                for place in range(len(statements.key), len(values)):
                    total[place] += values[place]
        self.events += changes.events
        self._deletions += changes.deletions

    def _key_of(self, row: Any) -> Key:
        return Key(type(row), self._statements.of[type(row)].key_of(values_of(row)))

    def _flush_rows(self) -> None:
        dirty = sorted(self._dirty, key=self._lock_order)
        self._dirty = {}
        for row, group in groupby(dirty, key=lambda key: key.row):
            statements = self._statements.of[row]
            new: list[tuple[Any, ...]] = []
            changed: list[tuple[Any, ...]] = []
            for key in group:
                values = values_of(self._known[key])
                if self._before[key] is None and key not in self._inserted:
                    new.append(values)
                    self._inserted.add(key)
                else:
                    changed.append(statements.update_parameters(values))
            self._execute(statements.insert, new)
            self._execute(statements.update, changed)

    def _flush_increments(self) -> None:
        ordered = sorted(self._increments, key=self._lock_order)
        for row, group in groupby(ordered, key=lambda key: key.row):
            self._execute(self._statements.of[row].increment, [tuple(self._increments[key]) for key in group])

    def _append(self, project_id: str, events: list[rows.Event]) -> None:
        self._load([Key(rows.Feed, (project_id,))])
        feed = self._known[Key(rows.Feed, (project_id,))]
        if feed is None:
            raise LookupError(f"project {project_id} has no feed")
        feed = rows.copy_of(feed)
        for event in events:
            feed.last += 1
            event.position = feed.last
        self._apply(Changes(None, rows=[feed]))
        self._flush_rows()
        self._execute(self._statements.of[rows.Event].insert, [values_of(event) for event in events])

    def _execute(self, sql: str, parameters: list[tuple[Any, ...]]) -> None:
        if parameters:
            self._connection.exec_driver_sql(sql, parameters)

    def _lock_order(self, key: Key) -> tuple[Any, ...]:
        return (self._statements.order[key.row], *key.values)


def _project(event: rows.Event) -> str:
    return event.project_id

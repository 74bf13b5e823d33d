"""One transaction: loads the rows of many operations, lets each decide in turn, and writes what they decided."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, TypeVar

from ao_server.errors import Problem
from ao_server.store import portions, rows
from ao_server.store.changes import Change, Changes, Deletion, Key, Operation, Selection
from ao_server.store.database import Database
from ao_server.store.recent import Recent
from ao_server.store.rows import values_of
from ao_server.store.shapes import Shape, Values
from ao_server.store.statements import TableStatements

RowType = TypeVar("RowType")

LOADED_AT_ONCE = 500


class Statements:
    """The compiled statements of every table."""

    def __init__(self, database: Database) -> None:
        self.of = {row: TableStatements(row, database.dialect) for row in _LOCK_ORDER}
        self.places = {row: place for place, row in enumerate(_LOCK_ORDER)}


# Rows are locked and written table by table in this order, on every path: PostgreSQL then has no deadlocks.
_LOCK_ORDER: tuple[type[Any], ...] = (
    rows.IdempotencyKey,
    rows.Registration,
    rows.Project,
    rows.Credential,
    rows.Agent,
    rows.Workflow,
    rows.WorkflowVersion,
    rows.Execution,
    rows.ExecutionStep,
    rows.ExecutionValue,
    rows.Task,
    rows.TaskLabel,
    rows.Payload,
    rows.Result,
    rows.LogLine,
    rows.AuditRecord,
    rows.TaskCount,
    rows.Rollup,
    rows.Feed,
    rows.EventPortion,
)


@dataclass(slots=True)
class _Table:
    """The rows of one table that a transaction knows, by their keys."""

    statements: TableStatements
    # As the decisions so far left them, None for one that does not exist.
    known: dict[Values, Any] = field(default_factory=dict[Values, Any])
    # Those that were changed since the last flush, as the store has them.
    dirty: dict[Values, Any] = field(default_factory=dict[Values, Any])
    # Those that were flushed, as they were before the transaction.
    flushed: dict[Values, Any] = field(default_factory=dict[Values, Any])

    @property
    def before(self) -> dict[Values, Any]:
        """Those that were changed, as they were before the transaction."""
        return self.dirty | self.flushed if self.dirty and self.flushed else self.dirty or self.flushed


class _Tables(dict[type[Any], _Table]):
    """The tables that a transaction has to do with, made when first asked for."""

    def __init__(self, statements: Statements) -> None:
        super().__init__()
        self._statements = statements

    def __missing__(self, row: type[Any]) -> _Table:
        table = self[row] = _Table(self._statements.of[row])
        return table

    def in_order(self) -> list[_Table]:
        """In the order in which they are locked and written."""
        places = self._statements.places
        return [self[row] for row in sorted(self, key=places.__getitem__)]


class View:
    """The rows that one decision sees."""

    __slots__ = ("_tables", "selected")

    def __init__(self, tables: _Tables, selected: Sequence[tuple[Any, ...]]) -> None:
        self._tables = tables
        self.selected = selected

    def get(self, row: type[RowType], *key: str | int) -> RowType | None:
        """The row as the decisions before left it, or None; KeyError when it was not asked for."""
        return self._tables[row].known[key]


class Batch:
    """The rows of one transaction in memory, ahead of what is flushed.

    `run` may be called several times; a later call sees, in its selections too, what the earlier ones changed.
    """

    def __init__(self, cursor: Any, database: Database, statements: Statements, recent: Recent, now: int) -> None:
        """`cursor`: the driver's own, on the writer's connection."""
        self.now = now
        self.events: list[rows.Event] = []
        self._cursor = cursor
        self._database = database
        self._recent = recent
        self._tables = _Tables(statements)
        self._deletions: list[Deletion] = []

    def run(self, operations: Sequence[Operation[Any]]) -> list[Any]:
        """Loads and decides; returns each operation's answer, or the Problem it raised."""
        self._load(key for operation in operations for key in operation.keys)
        answers: list[Any] = []
        for operation in operations:
            selected = self._select(operation)
            try:
                changes = operation.decide(View(self._tables, selected), self.now)
            except Problem as problem:
                answers.append(problem)
            else:
                self._apply(changes)
                answers.append(changes.answer)
        return answers

    def changes(self) -> list[Change]:
        """Every row that this transaction has changed so far, of the tables whose rows can change."""
        return [
            (before, table.known[key])
            for table in self._tables.values()
            if table.statements.changing
            for key, before in table.before.items()
        ]

    def feeds(self) -> list[Change]:
        """The feeds that the finished transaction has moved on: which of two moments of the store is later."""
        table = self._tables[rows.Feed]
        return [(before, table.known[key]) for key, before in table.before.items()]

    def portions(self) -> list[rows.EventPortion]:
        """What the finished transaction has written of events."""
        return list(self._tables[rows.EventPortion].known.values())

    @property
    def writes(self) -> bool:
        """Whether there is anything to write: what only looked proves nothing of the disk."""
        return bool(self._deletions or self.events or any(table.before for table in self._tables.values()))

    def finish(self, increments: Iterable[Any]) -> None:
        """Writes the rows, adds the increments, takes out what is old, then adds the events, numbered under the lock of
        their feed. Increments are rows whose values are added to what the store holds under the same key.
        """
        self.flush()
        self._add_up(increments)
        for deletion in self._deletions:
            sql = self._tables[deletion.row].statements.delete_until(deletion.column)
            self._cursor.execute(sql, (deletion.project_id, deletion.until, deletion.limit))
        if self._deletions:
            self._database.give_back(self._cursor)
        for project_id, events in groupby(sorted(self.events, key=_project), key=_project):
            self._append(project_id, list(events))
        self.flush()

    def remember(self) -> None:
        """The transaction is committed: what it wrote is what the store holds."""
        for row, table in self._tables.items():
            if before := table.before:
                known = table.known
                self._recent.keep(row, known if len(known) == len(before) else {key: known[key] for key in before})

    def _load(self, keys: Iterable[Key]) -> None:
        missing: dict[Any, set[Values]] = {}
        for wanted in keys:
            row, key = wanted.row, wanted.values
            known = self._tables[row].known
            if key not in known:
                found = self._recent.get(row, key)
                if found is None:
                    missing.setdefault(row, set()).add(key)
                else:
                    known[key] = found
        for table in self._tables.in_order() if missing else ():
            if absent := missing.get(table.statements.row):
                self._read(table, sorted(absent))

    def _read(self, table: _Table, keys: list[Values]) -> None:
        table.known.update(dict.fromkeys(keys))
        for front, group in groupby(keys, key=_front):
            last = [key[-1] for key in group]
            if len(last) == 1:
                self._remember(table, table.statements.select_by_key, (*front, last[0]))
                continue
            for start in range(0, len(last), LOADED_AT_ONCE):
                some = self._database.list_parameter(last[start : start + LOADED_AT_ONCE])
                self._remember(table, table.statements.select_by_last, (*front, some))

    def _remember(self, table: _Table, sql: str, parameters: Values) -> None:
        self._cursor.execute(sql, parameters)
        for values in self._cursor.fetchall():
            table.known[table.statements.key_of(values)] = table.statements.row(*values)

    def _select(self, operation: Operation[Any]) -> list[tuple[Any, ...]]:
        selection = operation.selection
        if selection is None:
            return []
        self.flush()
        self._cursor.execute(selection.sql, tuple(selection.parameters))
        found = self._cursor.fetchall()
        return self._rows(selection, found) if isinstance(selection, Selection) else found

    def _rows(self, selection: Selection, values_found: list[Values]) -> list[tuple[Any, ...]]:
        tables = [self._tables[row] for row in selection.rows]
        found: list[tuple[Any, ...]] = []
        for values in values_found:
            parts: list[Any] = []
            start = 0
            for table in tables:
                end = start + len(table.statements.columns)
                parts.append(_current(table, values[start:end]))
                start = end
            found.append(tuple(parts))
        return found

    def _apply(self, changes: Changes[Any]) -> None:
        for row in changes.rows:
            table = self._tables[type(row)]
            key = table.statements.key_of_row(row)
            if key not in table.dirty:
                table.dirty[key] = table.known.get(key)
            table.known[key] = row
        self.events += changes.events
        self._deletions += changes.deletions

    def flush(self) -> None:
        """Writes what was changed so far."""
        for table in self._tables.in_order():
            if table.dirty:
                self._write(table)
                table.flushed, table.dirty = table.before, {}

    def _write(self, table: _Table) -> None:
        statements, known = table.statements, table.known
        shapes: defaultdict[Shape, list[Any]] = defaultdict(list)
        for key, stored in sorted(table.dirty.items(), key=_first):
            row = known[key]
            shape = statements.insert_of(row) if stored is None else statements.update_of(stored, row)
            if shape is not None:
                shapes[shape].append(row)
        for shape, some in shapes.items():
            shape.write(self._cursor, some)

    def _add_up(self, increments: Iterable[Any]) -> None:
        by_table: dict[Any, list[Any]] = {}
        for row in increments:
            by_table.setdefault(type(row), []).append(row)
        for row in sorted(by_table, key=_LOCK_ORDER.index):
            self._tables[row].statements.increment.write(self._cursor, sorted(by_table[row], key=values_of))

    def _append(self, project_id: str, events: list[rows.Event]) -> None:
        self._load([Key(rows.Feed, (project_id,))])
        feed = self._tables[rows.Feed].known[(project_id,)]
        if feed is None:
            raise LookupError(f"project {project_id} has no feed")
        feed = rows.copy_of(feed)
        for event in events:
            feed.last += 1
            event.position = feed.last
        self._apply(Changes(None, rows=[feed, *portions.of(events)]))


def _current(table: _Table, values: Values) -> Any:
    """The row in memory if there is one: it may be ahead of what was selected."""
    key = table.statements.key_of(values)
    row = table.known.get(key)
    if row is None:
        row = table.known[key] = table.statements.row(*values)
    return row


def _first(key: Values) -> Any:
    return key[0]


def _front(key: Values) -> Values:
    return key[:-1]


def _project(event: rows.Event) -> str:
    return event.project_id

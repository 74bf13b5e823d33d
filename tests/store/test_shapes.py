"""What is written of rows is what is read of them: on both engines, however many there are, whatever they hold."""

from collections.abc import Generator, Sequence
from contextlib import closing, contextmanager
from typing import Any

import pytest

from ao_server.store import rows, schema
from ao_server.store.database import Database
from ao_server.store.statements import TableStatements

TEXT = "a 'b' \"c\" \\ \\n \\u0000 {d} % %s ? é 𝄞 \x1f\t"


@contextmanager
def cursor_of(database: Database) -> Generator[Any]:
    connection = database.connect_writer()
    schema.prepare(connection, database.path)
    with connection.begin(), closing(connection.connection.cursor()) as cursor:
        yield cursor
    connection.close()
    database.writing.dispose()


def stored(cursor: Any, row: type[Any]) -> list[Any]:
    table = rows.TABLES[row]
    names = ", ".join(f'"{column.name}"' for column in table.columns)
    cursor.execute(f"SELECT {names} FROM {table.name} ORDER BY project_id, {list(table.primary_key)[1].name}")
    return [row(*values) for values in cursor.fetchall()]


def tasks(count: int) -> list[rows.Task]:
    made = [
        rows.Task(
            project_id="p",
            id=f"task_{number:03}",
            agent_id=TEXT,
            type=TEXT,
            priority=2**31 - 1,
            created_at=2**62 + number,
            status="pending",
        )
        for number in range(count)
    ]
    for task in made[::3]:
        task.progress, task.labels, task.timeout = 0.1 + 0.2, TEXT, 0
    return made


@pytest.mark.parametrize("count", [1, 16, 53])
def test_rows_are_inserted_and_changed_as_they_are(count: int, database_url: str) -> None:
    database = Database(database_url)
    statements = TableStatements(rows.Task, database.dialect)

    def insert(cursor: Any, some: Sequence[Any]) -> None:
        for row in some:
            statements.insert_of(row).write(cursor, [row])

    with cursor_of(database) as cursor:
        first = tasks(count)
        alike = [row for number, row in enumerate(first) if number % 3]
        if alike:
            statements.insert_of(alike[0]).write(cursor, alike)
        insert(cursor, first[::3])
        assert stored(cursor, rows.Task) == first
        # To a value, to what it is by default, to null.
        for task in first:
            task.agent_id, task.progress, task.labels, task.attempt = "é", 5e-324, None, 7
        changed = [rows.copy_of(task) for task in first]
        for task in changed:
            task.agent_id, task.progress, task.attempt, task.error_message = "", 0.0, 0, TEXT
        for before, after in ((tasks(count), first), (first, changed)):
            shapes = {statements.update_of(*pair) for pair in zip(before, after, strict=True)}
            for shape in shapes:
                assert shape is not None
                shape.write(
                    cursor,
                    [row for was, row in zip(before, after, strict=True) if statements.update_of(was, row) is shape],
                )
        # Labels never change once they are written.
        for task, made in zip(changed, tasks(count), strict=True):
            task.labels = made.labels
        assert stored(cursor, rows.Task) == changed


@pytest.mark.parametrize("count", [1, 16, 53])
def test_rows_that_never_change_are_inserted_as_they_are(count: int, database_url: str) -> None:
    database = Database(database_url)
    made: dict[type[Any], list[tuple[Any, ...]]] = {
        rows.EventPortion: [("p", 3 ** (number % 39) + number, 2**62, TEXT * number) for number in range(count)],
        rows.Result: [("p", f"task_{number:03}", number * 40_000_000, TEXT * 99) for number in range(count)],
        rows.LogLine: [("p", TEXT, number, 2**31 - 1, -number, "", "é") for number in range(count)],
        rows.TaskLabel: [("p", f"{number:03}", TEXT, "task") for number in range(count)],
    }
    with cursor_of(database) as cursor:
        for row, values in made.items():
            statements = TableStatements(row, database.dialect)
            some = [rows.made(row, of_one) for of_one in values]
            for part in (some[:1], some[1:]):
                if part:
                    statements.insert_of(part[0]).write(cursor, part)
            key = statements.key_of_row
            assert sorted(stored(cursor, row), key=key) == sorted(some, key=key)


@pytest.mark.parametrize("count", [1, 16, 53])
def test_increments_are_added_to_what_is_there(count: int, database_url: str) -> None:
    database = Database(database_url)
    statements = TableStatements(rows.Rollup, database.dialect)
    some = [rows.Rollup(project_id="p", minute=minute, completed=minute, duration=2**40) for minute in range(count)]
    with cursor_of(database) as cursor:
        statements.increment.write(cursor, some)
        statements.increment.write(cursor, [rows.Rollup(project_id="p", minute=0, failed=3, completed=-1)])
        some[0].completed, some[0].failed = -1, 3
        assert stored(cursor, rows.Rollup) == some


@pytest.mark.parametrize("count", [0, 300])
def test_postgresql_finds_what_is_updated_by_its_key_before_the_table_is_analyzed(
    count: int, postgres_url: str
) -> None:
    database = Database(postgres_url)
    statements = TableStatements(rows.Task, database.dialect)
    before, after = tasks(1)[0], tasks(1)[0]
    after.progress, after.agent_id = 50.0, "another"
    update: Any = statements.update_of(before, after)
    with cursor_of(database) as cursor:
        for task in tasks(count):
            statements.insert_of(task).write(cursor, [task])
        update.write(cursor, [after])
        cursor.execute(f"EXPLAIN {update.sql}", ("[]",))
        plan = [step for (step,) in cursor.fetchall()]
        assert any("Index Scan using tasks_pkey" in step for step in plan), plan

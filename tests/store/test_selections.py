"""Every query on a hot path or at a start goes by an index, however many tasks there are."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from ao_server.store import counts, events, rows, schema, tasks
from ao_server.store.batch import Batch, Statements
from ao_server.store.changes import Changes, Operation, Selection, ValueSelection
from ao_server.store.database import Database
from ao_server.store.reader import Reader
from ao_server.store.recent import Recent
from ao_server.store.selections import TaskSelections, lane_of
from ao_server.store.statements import TableStatements
from tests.store.test_schema import writing

PROJECT = "project_default"
OF_AGENT = "tasks_unfinished (project_id=? AND agent_id=?)"
OF_QUEUE = "tasks_by_queue (project_id=? AND queue=?"


@pytest.fixture
def database(template: Path, tmp_path: Path) -> Database:
    """An empty store: without statistics SQLite plans for it as for a full one."""
    path = tmp_path / "ao.db"
    path.write_bytes(template.read_bytes())
    return Database(f"sqlite:///{path}")


def plan(database: Database, sql: str, parameters: Any) -> list[str]:
    with database.writing.connect() as connection:
        driver: Any = connection.connection.driver_connection
        return [str(step[3]) for step in driver.execute(f"EXPLAIN QUERY PLAN {sql}", tuple(parameters))]


def of_tasks(steps: list[str]) -> list[str]:
    return [step for step in steps if step.startswith(("SCAN tasks", "SEARCH tasks"))]


SELECTIONS: list[tuple[Callable[[TaskSelections], Selection], str]] = [
    (lambda of: of.held_by(PROJECT, "agent_1", "i1"), OF_AGENT),
    (lambda of: of.unfinished(PROJECT, "agent_1", 500), OF_AGENT),
    (lambda of: of.claimable_of_type(PROJECT, "agent_1", "a", 500), OF_QUEUE),
    (lambda of: of.ready(5, 500), "tasks_by_ready_at (ready_at<?)"),
]


@pytest.mark.parametrize(("select", "index"), SELECTIONS)
def test_a_selection_goes_by_its_index_and_needs_no_sorting(
    select: Callable[[TaskSelections], Selection], index: str, database: Database
) -> None:
    selection = select(TaskSelections(database))
    steps = plan(database, selection.sql, selection.parameters)
    assert [step for step in of_tasks(steps) if index not in step] == []
    assert not any("TEMP B-TREE" in step for step in steps), steps


@pytest.mark.parametrize("types", [None, ["a", "b"]])
def test_the_head_of_a_queue_is_found_in_its_index(types: list[str] | None, database: Database) -> None:
    selection = TaskSelections(database).head(PROJECT, "agent_1", types, 10)
    steps = plan(database, selection.sql, selection.parameters)
    assert {step.split(" USING ")[1] for step in of_tasks(steps)} == {f"INDEX {OF_QUEUE} AND priority=? AND turn=?)"}
    assert not any("TEMP B-TREE" in step for step in steps), steps


TASK = rows.Task(
    project_id=PROJECT, id="task_1", agent_id="", type="a", priority=2, created_at=0, status="pending", queue="type:t"
)


# Priority, turn and id, in the order of dispatch.
DISPATCHED = [
    (1, 1, "task_7"),
    (2, 0, "task_4"),
    (2, 0, "task_6"),
    (2, 1, "task_1"),
    (2, 1, "task_3"),
    (3, 0, "task_2"),
    (3, 1, "task_5"),
]


def waiting(priority: int, turn: int, task_id: str) -> rows.Task:
    task = rows.copy_of(TASK)
    task.priority, task.turn, task.id = priority, turn, task_id
    return task


async def test_what_has_begun_goes_before_new_work_of_its_priority_and_after_more_urgent_work(
    database_url: str,
) -> None:
    database = Database(database_url)
    selections = TaskSelections(database)
    made = [waiting(*each) for each in DISPATCHED]
    by_type = selections.claimable_of_type(PROJECT, TASK.queue, TASK.type, 10)
    heads = [selections.head(PROJECT, TASK.queue, types, 1) for types in (None, [TASK.type, "b"])]
    reads: list[Selection | ValueSelection] = [by_type, *heads]
    with writing(database) as connection:
        schema.prepare(connection, database.path)
        with connection.begin():
            batch = Batch(connection.connection.cursor(), database, Statements(database), Recent(), 0)
            batch.run([Operation(lambda found, now: Changes(None, rows=list(made)))])
            found = batch.run(
                [Operation(lambda found, now: Changes(list(found.selected)), selection=read) for read in reads]
            )
    assert [task.id for (task,) in found[0]] == [id_ for _, _, id_ in DISPATCHED]
    first = [(lane_of(each), each.id) for each in made if each.id not in {"task_6", "task_3"}]
    assert [sorted(head) for head in found[1:]] == [first, first]
    try:
        reader = Reader(database)
        assert [await tasks.ahead(reader, each, 1_000) for each in made] == list(range(len(made)))
    finally:
        await database.close()


READS: list[Callable[[Reader], Awaitable[Any]]] = [
    tasks.running,
    tasks.next_ready_at,
    lambda reader: tasks.ahead(reader, TASK, 1_000),
    lambda reader: counts.of_agents(reader, PROJECT, ["agent_1"]),
    lambda reader: counts.history(reader, PROJECT, 5, 30),
    lambda reader: events.after(reader, PROJECT, 5, 100),
    lambda reader: events.older_than(reader, PROJECT, 5, 100),
]


@pytest.mark.parametrize("read", READS)
async def test_a_read_goes_through_no_whole_table(read: Callable[[Reader], Awaitable[Any]], database: Database) -> None:
    statements: list[tuple[str, Any]] = []

    def note(connection: Any, cursor: Any, statement: str, parameters: Any, *more: Any) -> None:
        statements.append((statement, parameters))

    event.listen(database.reading.sync_engine, "before_cursor_execute", note)
    await read(Reader(database))
    for sql, parameters in statements:
        steps = plan(database, sql, parameters)
        assert not any(step.startswith(f"SCAN {name}") for step in steps for name in ("tasks", "event", "log")), steps
    assert statements
    await database.close()


@pytest.mark.parametrize(
    ("row", "column"), [(rows.IdempotencyKey, "created_at"), (rows.Rollup, "minute"), (rows.EventPortion, "last")]
)
def test_pruning_goes_by_age(row: type[Any], column: str, database: Database) -> None:
    sql = TableStatements(row, database.dialect).delete_until(column)
    steps = plan(database, sql, (PROJECT, 5, 100))
    assert any(f"project_id=? AND {column}<?" in step for step in steps), steps
    assert not any(step.startswith("SCAN") for step in steps), steps

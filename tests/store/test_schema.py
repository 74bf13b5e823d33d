import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, text
from sqlmodel import SQLModel

from ao_server.errors import CannotStart
from ao_server.store import agents, events, lists, rows, schema, tasks
from ao_server.store.batch import Batch, Statements
from ao_server.store.changes import Changes, Key, Operation
from ao_server.store.database import Database
from ao_server.store.filters import TaskFilter
from ao_server.store.reader import Reader
from ao_server.store.recent import Recent
from ao_server.store.selections import TaskSelections, lane_of
from ao_server.store.totals import Totals

LATER = """
import sqlalchemy as sa
from alembic import op

revision = "9999"
down_revision = "{head}"


def upgrade() -> None:
    op.add_column("agents", sa.Column("nickname", sa.Text(), nullable=True))
"""


@contextmanager
def writing(database: Database) -> Generator[Connection, None, None]:
    connection = database.connect_writer()
    try:
        yield connection
    finally:
        connection.close()
        database.writing.dispose()


def migrate_from(revision: str, sql: str, database: Database, connection: Connection) -> None:
    """Makes a database of an earlier revision, which these statements fill, one of the present."""
    configuration = schema.alembic_configuration()
    configuration.attributes["connection"] = connection
    with connection.begin():
        command.upgrade(configuration, revision)
        for statement in sql.split(";"):
            connection.exec_driver_sql(statement if database.is_sqlite else statement.replace("%", "%%"))
    schema.prepare(connection, database.path)


def test_the_migrations_make_exactly_the_tables_of_the_code(database_url: str) -> None:
    database = Database(database_url)
    with writing(database) as connection:
        schema.prepare(connection, database.path)
        assert schema.current_revision(connection) == schema.HEAD
        with connection.begin():
            context = MigrationContext.configure(connection, opts={"compare_type": True})
            assert compare_metadata(context, SQLModel.metadata) == []


@pytest.mark.parametrize("row", [rows.Agent, rows.Task])
def test_postgresql_finds_rows_by_their_keys_in_tables_that_are_still_empty(row: type[Any], postgres_url: str) -> None:
    database = Database(postgres_url)
    with writing(database) as connection:
        schema.prepare(connection, database.path)
        name = rows.TABLES[row].name
        plan = connection.exec_driver_sql(f"EXPLAIN SELECT 1 FROM {name} WHERE project_id = 'p' AND id = 'i'").scalars()
        assert any(f"{name}_pkey" in step for step in plan.all())


INDEXED_TEXT = """
SELECT index.relname, attname, collname FROM pg_index
JOIN pg_class AS index ON index.oid = indexrelid
JOIN pg_class AS indexed ON indexed.oid = indrelid
JOIN pg_attribute ON attrelid = index.oid
JOIN pg_collation ON pg_collation.oid = attcollation
WHERE indexed.relnamespace = 'public'::regnamespace AND indexed.relname <> 'alembic_version'
"""


def test_postgresql_keeps_text_in_indexes_in_the_order_of_its_bytes(postgres_url: str) -> None:
    database = Database(postgres_url)
    with writing(database) as connection:
        schema.prepare(connection, database.path)
        indexed = connection.exec_driver_sql(INDEXED_TEXT).all()
        assert len(indexed) > 40
        assert [found for found in indexed if found[2] != "C"] == []


def test_postgresql_leaves_room_in_the_indexes_that_a_task_enters_with_each_change(postgres_url: str) -> None:
    database = Database(postgres_url)
    with writing(database) as connection:
        schema.prepare(connection, database.path)
        roomy = connection.exec_driver_sql("SELECT relname FROM pg_class WHERE reloptions = ARRAY['fillfactor=50']")
        assert set(roomy.scalars()) == {
            "tasks_pkey",
            "tasks_by_agent",
            "tasks_by_type",
            "tasks_by_agent_type",
            "tasks_unfinished",
        }


def test_a_newer_schema_is_refused_in_one_line(database_url: str) -> None:
    database = Database(database_url)
    with writing(database) as connection:
        schema.prepare(connection, database.path)
        with connection.begin():
            connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        with pytest.raises(CannotStart, match="newer than this build"):
            schema.prepare(connection, database.path)


def test_an_older_schema_is_copied_first_and_then_migrated(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database(database_url)
    with writing(database) as connection:
        schema.prepare(connection, database.path)
        table = rows.TABLES[rows.Agent]
        with connection.begin():
            row = rows.Agent(
                project_id="p",
                id="a",
                name="n",
                type="t",
                status="active",
                configuration="{}",
                created_at=1,
                updated_at=1,
            )
            connection.execute(table.insert().values(rows.values_of(row)))
        migrations = tmp_path / "migrations"
        shutil.copytree(schema.MIGRATIONS, migrations)
        (migrations / "versions" / "9999_later.py").write_text(LATER.format(head=schema.HEAD))
        monkeypatch.setattr(schema, "MIGRATIONS", migrations)
        monkeypatch.setattr(schema, "HEAD", "9999")
        schema.prepare(connection, database.path)
        with connection.begin():
            assert connection.execute(text("SELECT name, nickname FROM agents")).one() == ("n", None)
    copies = list(tmp_path.glob("ao.db.before-*"))
    assert len(copies) == (1 if database.is_sqlite else 0)
    for path in copies:
        copy = Database(f"sqlite:///{path}")
        with writing(copy) as connection, connection.begin():
            assert connection.execute(text("SELECT name FROM agents")).scalar_one() == "n"


FIRST_ROWS = """
INSERT INTO agents (project_id, id, name, type, status, configuration, created_at, updated_at)
    VALUES ('p', 'agent_1', 'n', 'worker', 'inactive', '{}', 1, 1),
           ('p', 'agent_2', 'n', 'worker', 'inactive', '{}', 2, 2);
INSERT INTO registrations VALUES ('p', 'worker', 'n', 'agent_1');
INSERT INTO tasks
    (project_id, id, agent_id, type, priority, created_at, status, attempt, deliveries, progress, log_lines)
    VALUES ('p', 'task_1', 'agent_1', 'work', 2, 1, 'pending', 0, 0, 0, 0);
INSERT INTO payloads VALUES ('p', 'task_1', '{"n":1}');
INSERT INTO task_counts VALUES ('p', 'agent_1', 'work', 2, 'pending', 1, 0)
"""


async def test_what_the_first_schema_holds_is_found_and_dispatched_by_the_present_one(database_url: str) -> None:
    database = Database(database_url)
    with writing(database) as connection:
        migrate_from("0001", FIRST_ROWS, database, connection)
        selection = TaskSelections(database).head("p", "agent_1", None, 10)
        statements = Statements(database)
        with connection.begin():
            found = Batch(connection.connection.cursor(), database, statements, Recent(), 0)
            keys = [Key(rows.Task, ("p", "task_1")), Key(rows.Payload, ("p", "task_1"))]
            (head, (task, payload)) = found.run(
                [
                    Operation(lambda found, now: Changes(list(found.selected)), selection=selection),
                    Operation(lambda found, now: Changes([found.get(key.row, *key.values) for key in keys]), keys=keys),
                ]
            )
        assert head == [(lane_of(task), "task_1")]
        assert (task.id, task.queue, task.agent_type, payload.payload) == ("task_1", "agent_1", "worker", '{"n":1}')
    reader = Reader(database)
    try:
        chosen = TaskFilter(agent_type="worker", status="pending")
        assert (await lists.page(Totals(reader), "p", chosen, page=1, limit=10)).total == 1
        registered = [(await agents.get(reader, "p", name)) for name in ("agent_1", "agent_2")]
        assert [agent and agent.registered_as for agent in registered] == ["n", None]
    finally:
        await database.close()


LABELLED_ROWS = """
INSERT INTO tasks
    (project_id, id, agent_id, type, priority, created_at, status, attempt, deliveries, progress, log_lines, queue,
     agent_type, failures, labels, instance_id, completed_at)
    VALUES
    ('p', 'task_1', 'agent_1', 'w', 2, 1, 'pending', 0, 0, 0, 0, 'q', 't', 0, '{"env":"prod"}', NULL, NULL),
    ('p', 'task_2', 'agent_1', 'w', 2, 2, 'running', 1, 1, 0, 0, 'q', 't', 0, NULL, 'i', NULL),
    ('p', 'task_3', 'agent_1', 'w', 2, 3, 'completed', 1, 1, 0, 0, 'q', 't', 0, '{"env":"x","a":""}', 'i', 9);
INSERT INTO task_labels VALUES ('p', 'env', 'prod', 'task_1'), ('p', 'env', 'x', 'task_3'), ('p', 'a', '', 'task_3');
INSERT INTO feeds (project_id, feed_id, last, pruned) VALUES ('p', 'f', 0, 0)
"""


async def test_labels_and_unfinished_tasks_of_the_second_schema_are_found_by_the_present_one(database_url: str) -> None:
    database = Database(database_url)
    with writing(database) as connection:
        migrate_from("0002", LABELLED_ROWS, database, connection)
        selections = TaskSelections(database)
        with connection.begin():
            found = Batch(connection.connection.cursor(), database, Statements(database), Recent(), 0)
            held, unfinished = found.run(
                [
                    Operation(lambda found, now: Changes(list(found.selected)), selection=selection)
                    for selection in (selections.held_by("p", "agent_1", "i"), selections.unfinished("p", "agent_1", 9))
                ]
            )
        assert [task.id for (task,) in held] == ["task_2"]
        assert [task.id for (task,) in unfinished] == ["task_1", "task_2"]
    reader = Reader(database)
    try:
        totals = Totals(reader)
        for labels, expected in (
            ([("env", None)], ["task_3", "task_1"]),
            ([("env", "prod")], ["task_1"]),
            ([("env", "x"), ("a", "")], ["task_3"]),
        ):
            page = await lists.page(totals, "p", TaskFilter(labels=labels), page=1, limit=10)
            assert ([listed.task.id for listed in page.rows], page.total) == (expected, len(expected))
        assert [task.id for task in await tasks.running(reader)] == ["task_2"]
    finally:
        await database.close()


EVENT_ROWS = """
INSERT INTO events (project_id, position, type, timestamp, agent_id, task_id, body) VALUES
    ('p', 4, 'task_created', 7, 'agent_1', 'task_1', '{"task":{"id":"task_1","labels":"{\\"a\\":\\"é\\"}"}}'),
    ('p', 5, 'system_alert', 8, NULL, NULL, '{}'),
    ('q', 1, 'task_log', 9, 'agent_1', 'task_1', '{"lines":["\\u0000 50 %"]}');
INSERT INTO feeds (project_id, feed_id, last, pruned) VALUES ('p', 'f', 5, 3), ('q', 'g', 1, 0)
"""


async def test_events_of_the_third_schema_are_read_by_the_present_one(database_url: str) -> None:
    database = Database(database_url)
    with writing(database) as connection:
        migrate_from("0003", EVENT_ROWS, database, connection)
    reader = Reader(database)
    try:
        body = '{"task":{"id":"task_1","labels":"{\\"a\\":\\"é\\"}"}}'
        first = rows.Event("p", 4, "task_created", 7, body, "agent_1", "task_1")
        assert await events.after(reader, "p", 3, 10) == [first, rows.Event("p", 5, "system_alert", 8, "{}")]
        assert await events.after(reader, "p", 4, 10) == [rows.Event("p", 5, "system_alert", 8, "{}")]
        (other,) = await events.after(reader, "q", 0, 10)
        assert other.body == '{"lines":["\\u0000 50 %"]}'
        assert await events.older_than(reader, "p", 8, 10) is None
        assert await events.older_than(reader, "p", 9, 10) == 5
    finally:
        await database.close()


def test_an_interrupted_first_start_leaves_an_empty_database_that_the_next_start_fills(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database(database_url)
    with writing(database) as connection:

        def power_cut(target: Connection) -> None:
            with target.begin():
                target.execute(text("CREATE TABLE agents (half TEXT)"))
                raise KeyboardInterrupt

        monkeypatch.setattr(schema, "_upgrade", power_cut)
        with pytest.raises(KeyboardInterrupt):
            schema.prepare(connection, database.path)
        monkeypatch.undo()
        assert schema.current_revision(connection) is None
        schema.prepare(connection, database.path)
        assert schema.current_revision(connection) == schema.HEAD

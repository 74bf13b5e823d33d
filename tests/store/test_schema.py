import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, text
from sqlmodel import SQLModel

from ao_server.errors import CannotStart
from ao_server.store import rows, schema
from ao_server.store.database import Database

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


def test_the_migrations_make_exactly_the_tables_of_the_code(database_url: str) -> None:
    database = Database(database_url)
    with writing(database) as connection:
        schema.prepare(connection, database.path)
        assert schema.current_revision(connection) == schema.HEAD
        with connection.begin():
            context = MigrationContext.configure(connection, opts={"compare_type": True})
            assert compare_metadata(context, SQLModel.metadata) == []


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
        agents = rows.TABLES[rows.Agent]
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
            connection.execute(agents.insert().values(rows.values_of(row)))
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

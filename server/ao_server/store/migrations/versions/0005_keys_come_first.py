"""On PostgreSQL, primary keys that are newer than the other indexes of their tables.

Of indexes that it thinks equally dear, which they all are while a table is small, PostgreSQL takes the newest, and
keeps the plan. For a row by its key that was one which holds the id behind columns that are not given: each update
looked through all tasks of the project, until the table was analyzed for the first time.
"""

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        for table in ("agents", "tasks"):
            key = f"{table}_pkey"
            op.execute(f"ALTER TABLE {table} DROP CONSTRAINT {key}, ADD CONSTRAINT {key} PRIMARY KEY (project_id, id)")

"""On PostgreSQL, text in keys and indexes in the order of its bytes, as on SQLite, and room in the indexes of tasks.

A database's own order is that of a language: each step through an index then costs a comparison by its rules.

A task is written three times within moments of its creation, and each time enters anew all indexes that it stands in.
They keep half of each new page free for that: a full one is searched for entries to merge or to drop at each further
entry, then split, so that packed indexes end no smaller.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

COLUMNS = {
    "credentials": ("project_id", "id", "sha256"),
    "agents": ("project_id", "id", "type", "status"),
    "registrations": ("project_id", "type", "name"),
    "tasks": ("project_id", "id", "agent_id", "type", "status", "queue", "agent_type"),
    "task_labels": ("project_id", "key", "value", "task_id"),
    "idempotency_keys": ("project_id", "key"),
    "payloads": ("project_id", "task_id"),
    "results": ("project_id", "task_id"),
    "log_lines": ("project_id", "task_id"),
    "feeds": ("project_id",),
    "event_portions": ("project_id",),
    "task_counts": ("project_id", "agent_id", "agent_type", "type", "status"),
    "rollups": ("project_id",),
}
# Their keys stay newer than their other indexes, see 0005.
WITH_OTHER_INDEXES = ("agents", "tasks")
# Not those that a task enters once, or once with each status.
ENTERED_AGAIN = ("tasks_pkey", "tasks_by_agent", "tasks_by_type", "tasks_by_agent_type", "tasks_unfinished")


def upgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        for table, columns in COLUMNS.items():
            op.execute(f"ALTER TABLE {table} {', '.join(_changes(table, columns))}")
        for index in ENTERED_AGAIN:
            op.execute(f"ALTER INDEX {index} SET (fillfactor = 50)")
        # Columns that change lose what the planner knows of them.
        if op.get_bind().execute(sa.text("SELECT EXISTS (SELECT 1 FROM tasks)")).scalar():
            for table in COLUMNS:
                op.execute(f"ANALYZE {table}")


def _changes(table: str, columns: tuple[str, ...]) -> list[str]:
    changes = [f'ALTER COLUMN {column} TYPE VARCHAR COLLATE "C"' for column in columns]
    if table in WITH_OTHER_INDEXES:
        key = f"{table}_pkey"
        changes = [f"DROP CONSTRAINT {key}", *changes, f"ADD CONSTRAINT {key} PRIMARY KEY (project_id, id)"]
    return changes

"""Indexes for lists by every filter; those that led with the status within an agent are given up for them."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

UNFINISHED = "completed_at IS NULL"


def upgrade() -> None:
    op.drop_index("tasks_by_agent", "tasks")
    op.create_index("tasks_by_agent", "tasks", ["project_id", "agent_id", "id", "type", "priority"])
    op.create_index("tasks_by_type", "tasks", ["project_id", "type", "id", "agent_type", "priority"])
    op.create_index("tasks_by_agent_type", "tasks", ["project_id", "agent_type", "id", "priority"])
    where = {"sqlite_where": sa.text(UNFINISHED), "postgresql_where": sa.text(UNFINISHED)}
    op.create_index("tasks_unfinished", "tasks", ["project_id", "agent_id", "id"], **where)
    if op.get_bind().dialect.name == "sqlite":
        _labels_without_rowid()
    op.create_index("task_labels_by_key", "task_labels", ["project_id", "key", "task_id"])


def _labels_without_rowid() -> None:
    op.rename_table("task_labels", "old_task_labels")
    op.create_table(
        "task_labels",
        sa.Column("project_id", sa.String(), autoincrement=False, nullable=False),
        sa.Column("key", sa.String(), autoincrement=False, nullable=False),
        sa.Column("value", sa.String(), autoincrement=False, nullable=False),
        sa.Column("task_id", sa.String(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("project_id", "key", "value", "task_id"),
        sqlite_with_rowid=False,
    )
    op.execute("INSERT INTO task_labels SELECT project_id, key, value, task_id FROM old_task_labels")
    op.drop_table("old_task_labels")

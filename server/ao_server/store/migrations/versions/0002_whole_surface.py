"""Retries, delays, labels, cancellation, pauses and deletion of agents, idempotency keys."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

CLAIMABLE = "status = 'pending' AND ready_at IS NULL"


def upgrade() -> None:
    _agents()
    _tasks()
    _task_counts()
    op.create_table(
        "task_labels",
        sa.Column("project_id", sa.String(), autoincrement=False, nullable=False),
        sa.Column("key", sa.String(), autoincrement=False, nullable=False),
        sa.Column("value", sa.String(), autoincrement=False, nullable=False),
        sa.Column("task_id", sa.String(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("project_id", "key", "value", "task_id"),
    )
    op.create_table(
        "idempotency_keys",
        sa.Column("project_id", sa.String(), autoincrement=False, nullable=False),
        sa.Column("key", sa.String(), autoincrement=False, nullable=False),
        sa.Column("request_hash", sa.String(), nullable=False),
        sa.Column("answer", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("project_id", "key"),
    )
    op.create_index("idempotency_keys_by_age", "idempotency_keys", ["project_id", "created_at"])


def _agents() -> None:
    op.add_column("agents", sa.Column("mode", sa.String(), nullable=False, server_default="serving"))
    op.add_column("agents", sa.Column("lost_sessions", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("agents", sa.Column("registered_as", sa.Text(), nullable=True))
    op.add_column("agents", sa.Column("deleted_at", sa.BigInteger(), nullable=True))
    op.execute(
        "UPDATE agents SET registered_as = name WHERE EXISTS (SELECT 1 FROM registrations"
        " WHERE registrations.project_id = agents.project_id AND registrations.agent_id = agents.id)"
    )


def _tasks() -> None:
    for name in ("queue", "agent_type"):
        op.add_column("tasks", sa.Column(name, sa.String(), nullable=False, server_default=""))
    for name in ("labels", "retry"):
        op.add_column("tasks", sa.Column(name, sa.Text(), nullable=True))
    for name in ("timeout", "run_at", "ready_at", "times_out_at", "cancel_requested_at"):
        op.add_column("tasks", sa.Column(name, sa.BigInteger(), nullable=True))
    op.add_column("tasks", sa.Column("retry_of", sa.String(), nullable=True))
    op.add_column("tasks", sa.Column("failures", sa.Integer(), nullable=False, server_default="0"))
    op.execute(
        "UPDATE tasks SET queue = agent_id, agent_type = COALESCE((SELECT agents.type FROM agents"
        " WHERE agents.project_id = tasks.project_id AND agents.id = tasks.agent_id), '')"
    )
    where = {"sqlite_where": sa.text(CLAIMABLE), "postgresql_where": sa.text(CLAIMABLE)}
    op.create_index("tasks_by_queue", "tasks", ["project_id", "queue", "priority", "id"], **where)
    set_ = sa.text("ready_at IS NOT NULL")
    op.create_index("tasks_by_ready_at", "tasks", ["ready_at"], sqlite_where=set_, postgresql_where=set_)


def _task_counts() -> None:
    op.rename_table("task_counts", "old_task_counts")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER INDEX task_counts_pkey RENAME TO old_task_counts_pkey")
    op.create_table(
        "task_counts",
        sa.Column("project_id", sa.String(), autoincrement=False, nullable=False),
        sa.Column("agent_id", sa.String(), autoincrement=False, nullable=False),
        sa.Column("agent_type", sa.String(), autoincrement=False, nullable=False),
        sa.Column("type", sa.String(), autoincrement=False, nullable=False),
        sa.Column("priority", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("status", sa.String(), autoincrement=False, nullable=False),
        sa.Column("tasks", sa.BigInteger(), nullable=False),
        sa.Column("duration", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("project_id", "agent_id", "agent_type", "type", "priority", "status"),
    )
    op.execute(
        "INSERT INTO task_counts (project_id, agent_id, agent_type, type, priority, status, tasks, duration)"
        " SELECT c.project_id, c.agent_id, COALESCE(a.type, ''), c.type, c.priority, c.status, c.tasks, c.duration"
        " FROM old_task_counts c LEFT JOIN agents a ON a.project_id = c.project_id AND a.id = c.agent_id"
    )
    op.drop_table("old_task_counts")

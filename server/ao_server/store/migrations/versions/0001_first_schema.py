"""The first schema: agents, tasks, their events and counters."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "agents",
        sa.Column("project_id", sa.String(), autoincrement=False, nullable=False),
        sa.Column("id", sa.String(), autoincrement=False, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("type", sa.String(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("configuration", sa.Text(), nullable=False),
        sa.Column("environment", sa.Text(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("last_seen_at", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("status IN ('initializing', 'active', 'inactive', 'error')", name="status_known"),
        sa.PrimaryKeyConstraint("project_id", "id"),
    )
    op.create_index("agents_by_status", "agents", ["project_id", "status", "id"], unique=False)
    op.create_index("agents_by_type", "agents", ["project_id", "type", "id"], unique=False)
    op.create_table(
        "credentials",
        sa.Column("project_id", sa.String(), autoincrement=False, nullable=False),
        sa.Column("id", sa.String(), autoincrement=False, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("project_id", "id"),
        sa.UniqueConstraint("sha256"),
    )
    op.create_table(
        "events",
        sa.Column("project_id", sa.String(), autoincrement=False, nullable=False),
        sa.Column("position", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("type", sa.String(), nullable=False),
        sa.Column("timestamp", sa.BigInteger(), nullable=False),
        sa.Column("agent_id", sa.String(), nullable=True),
        sa.Column("task_id", sa.String(), nullable=True),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("project_id", "position"),
    )
    op.create_table(
        "feeds",
        sa.Column("project_id", sa.String(), autoincrement=False, nullable=False),
        sa.Column("feed_id", sa.String(), nullable=False),
        sa.Column("last", sa.BigInteger(), nullable=False),
        sa.Column("pruned", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("project_id"),
    )
    op.create_table(
        "log_lines",
        sa.Column("project_id", sa.String(), autoincrement=False, nullable=False),
        sa.Column("task_id", sa.String(), autoincrement=False, nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("timestamp", sa.BigInteger(), nullable=False),
        sa.Column("level", sa.String(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("project_id", "task_id", "number"),
    )
    op.create_table(
        "payloads",
        sa.Column("project_id", sa.String(), autoincrement=False, nullable=False),
        sa.Column("task_id", sa.String(), autoincrement=False, nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("project_id", "task_id"),
    )
    op.create_table(
        "registrations",
        sa.Column("project_id", sa.String(), autoincrement=False, nullable=False),
        sa.Column("type", sa.String(), autoincrement=False, nullable=False),
        sa.Column("name", sa.String(), autoincrement=False, nullable=False),
        sa.Column("agent_id", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("project_id", "type", "name"),
    )
    op.create_table(
        "results",
        sa.Column("project_id", sa.String(), autoincrement=False, nullable=False),
        sa.Column("task_id", sa.String(), autoincrement=False, nullable=False),
        sa.Column("bytes", sa.Integer(), nullable=False),
        sa.Column("result", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("project_id", "task_id"),
    )
    op.create_table(
        "rollups",
        sa.Column("project_id", sa.String(), autoincrement=False, nullable=False),
        sa.Column("minute", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("completed", sa.BigInteger(), nullable=False),
        sa.Column("failed", sa.BigInteger(), nullable=False),
        sa.Column("duration", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("project_id", "minute"),
    )
    op.create_table(
        "task_counts",
        sa.Column("project_id", sa.String(), autoincrement=False, nullable=False),
        sa.Column("agent_id", sa.String(), autoincrement=False, nullable=False),
        sa.Column("type", sa.String(), autoincrement=False, nullable=False),
        sa.Column("priority", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("status", sa.String(), autoincrement=False, nullable=False),
        sa.Column("tasks", sa.BigInteger(), nullable=False),
        sa.Column("duration", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("project_id", "agent_id", "type", "priority", "status"),
    )
    op.create_table(
        "tasks",
        sa.Column("project_id", sa.String(), autoincrement=False, nullable=False),
        sa.Column("id", sa.String(), autoincrement=False, nullable=False),
        sa.Column("agent_id", sa.String(), nullable=False),
        sa.Column("type", sa.String(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("deliveries", sa.Integer(), nullable=False),
        sa.Column("instance_id", sa.String(), nullable=True),
        sa.Column("progress", sa.Float(), nullable=False),
        sa.Column("progress_message", sa.Text(), nullable=True),
        sa.Column("estimated_completion", sa.BigInteger(), nullable=True),
        sa.Column("log_lines", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=True),
        sa.Column("completed_at", sa.BigInteger(), nullable=True),
        sa.Column("error_code", sa.String(), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "(status IN ('completed', 'failed', 'cancelled')) = (completed_at IS NOT NULL)", name="final_is_completed"
        ),
        sa.CheckConstraint("status <> 'running' OR instance_id IS NOT NULL", name="running_is_held"),
        sa.CheckConstraint("status IN ('pending', 'running', 'completed', 'failed', 'cancelled')", name="status_known"),
        sa.PrimaryKeyConstraint("project_id", "id"),
    )
    op.create_index("tasks_by_agent", "tasks", ["project_id", "agent_id", "status", "priority", "id"], unique=False)
    op.create_index("tasks_by_status", "tasks", ["project_id", "status", "priority", "id"], unique=False)

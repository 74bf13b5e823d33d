"""Workflows, their versions, executions with their steps and values; tasks of steps, which go before their like."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

CLAIMABLE = "status = 'pending' AND ready_at IS NULL"


def upgrade() -> None:
    # Text in keys and indexes is in the order of its bytes, see 0006.
    text = sa.String(collation="C") if op.get_bind().dialect.name == "postgresql" else sa.String()
    for name in ("execution_id", "step_id"):
        op.add_column("tasks", sa.Column(name, text, nullable=True))
    op.add_column("tasks", sa.Column("item", sa.Integer(), nullable=True))
    op.add_column("tasks", sa.Column("turn", sa.Integer(), nullable=False, server_default="1"))
    op.drop_index("tasks_by_queue", "tasks")
    _partial("tasks_by_queue", "tasks", ["project_id", "queue", "priority", "turn", "id"], CLAIMABLE)
    _partial("tasks_by_execution", "tasks", ["project_id", "execution_id", "id", "step_id"], "execution_id IS NOT NULL")
    _workflows(text)
    _executions(text)
    _steps(text)


def _workflows(text: Any) -> None:
    op.create_table(
        "workflows",
        _key("project_id", text),
        _key("id", text),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("status", text, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("project_id", "id"),
        _one_of("status", ("active", "archived")),
    )
    op.create_index("workflows_by_status", "workflows", ["project_id", "status", "id"])
    op.create_table(
        "workflow_versions",
        _key("project_id", text),
        _key("workflow_id", text),
        _key("version", sa.Integer()),
        sa.Column("steps", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("project_id", "workflow_id", "version"),
    )


def _executions(text: Any) -> None:
    op.create_table(
        "executions",
        _key("project_id", text),
        _key("id", text),
        sa.Column("workflow_id", text, nullable=False),
        *(_whole(name) for name in ("version", "priority")),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("status", text, nullable=False),
        sa.Column("phase", sa.String(), nullable=False),
        *(_whole(name) for name in ("open", "active", "compensates")),
        sa.Column("undo_next", sa.Integer(), nullable=True),
        *(_whole(name) for name in ("approvals", "retries")),
        sa.Column("parent_id", text, nullable=True),
        sa.Column("parent_step", sa.String(), nullable=True),
        sa.Column("parent_item", sa.Integer(), nullable=True),
        _whole("depth"),
        sa.Column("postponed", sa.Integer(), nullable=True),
        *(sa.Column(name, sa.BigInteger(), nullable=True) for name in ("completed_at", "cancel_requested_at")),
        sa.Column("error_code", sa.String(), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("project_id", "id"),
        _one_of("status", ("running", "completed", "failed", "cancelled")),
        _one_of("phase", ("forward", "failing", "undoing", "cancelling", "ended")),
        sa.CheckConstraint("(status = 'running') = (completed_at IS NULL)", name="ended_is_completed"),
    )
    op.create_index("executions_by_workflow", "executions", ["project_id", "workflow_id", "id", "status"])
    op.create_index("executions_by_status", "executions", ["project_id", "status", "id"])
    _partial("executions_by_parent", "executions", ["project_id", "parent_id", "id"], "parent_id IS NOT NULL")
    _partial("executions_postponed", "executions", ["id"], "postponed IS NOT NULL")


def _steps(text: Any) -> None:
    op.create_table(
        "execution_steps",
        _key("project_id", text),
        _key("execution_id", text),
        _key("place", sa.Integer()),
        _whole("unmet"),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("items", sa.Integer(), nullable=True),
        *(_whole(name) for name in ("begun", "running", "completed", "kept")),
        *(sa.Column(name, sa.String(), nullable=True) for name in ("round_from", "first_id", "last_id", "decision")),
        _whole("bytes"),
        sa.Column("undo_next", sa.Integer(), nullable=True),
        sa.Column("compensation", sa.String(), nullable=True),
        *(sa.Column(name, sa.BigInteger(), nullable=True) for name in ("started_at", "completed_at", "due_at")),
        sa.Column("error_code", sa.String(), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("project_id", "execution_id", "place"),
        _one_of("status", ("pending", "running", "completed", "failed", "skipped", "cancelled")),
    )
    _partial("execution_steps_by_due_at", "execution_steps", ["due_at"], "due_at IS NOT NULL")
    op.create_table(
        "execution_values",
        _key("project_id", text),
        _key("execution_id", text),
        _key("name", text),
        _key("place", sa.Integer()),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("project_id", "execution_id", "name", "place"),
    )


def _key(name: str, type_: Any) -> Any:
    return sa.Column(name, type_, autoincrement=False, nullable=False)


def _whole(name: str) -> Any:
    return sa.Column(name, sa.Integer(), nullable=False)


def _one_of(column: str, values: Sequence[str]) -> sa.CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)
    return sa.CheckConstraint(f"{column} IN ({listed})", name=f"{column}_known")


def _partial(name: str, table: str, columns: Sequence[str], where: str) -> None:
    op.create_index(name, table, list(columns), sqlite_where=sa.text(where), postgresql_where=sa.text(where))

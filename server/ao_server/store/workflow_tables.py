"""The tables of workflows and their executions; see `tables` for what holds of all."""

from typing import Any, ClassVar

from sqlalchemy import BigInteger, CheckConstraint, Index, Integer, String, Text
from sqlmodel import Field, SQLModel

from ao_server.store import columns

WORKFLOW_STATUSES = ("active", "archived")
EXECUTION_STATUSES = ("running", "completed", "failed", "cancelled")
# What an execution that runs does: begins steps; lets those that run end, after one failed; undoes what was completed;
# stops. The last: it has ended.
PHASES = ("forward", "failing", "undoing", "cancelling", "ended")
STEP_STATUSES = ("pending", "running", "completed", "failed", "skipped", "cancelled")
# Steps that end at a time.
DUE = "due_at IS NOT NULL"
# Executions that steps of others have begun.
OF_PARENT = "parent_id IS NOT NULL"
# Executions that are to be carried on by a transaction with room for them.
POSTPONED = "postponed IS NOT NULL"


class Workflow(SQLModel, table=True):
    """A workflow as it is now."""

    __tablename__: ClassVar[Any] = "workflows"
    __table_args__: ClassVar[Any] = (
        columns.one_of("status", WORKFLOW_STATUSES),
        Index("workflows_by_status", "project_id", "status", "id"),
    )

    project_id: str = Field(sa_column=columns.key())
    id: str = Field(sa_column=columns.key())
    name: str = Field(sa_column=columns.changing(Text))
    status: str = Field(sa_column=columns.changing(String))
    # The number of its newest version, from 1.
    version: int = Field(sa_column=columns.changing(Integer))
    created_at: int = Field(sa_column=columns.fixed(BigInteger))
    updated_at: int = Field(sa_column=columns.changing(BigInteger))
    description: str | None = Field(default=None, sa_column=columns.changing(Text, nullable=True))


class WorkflowVersion(SQLModel, table=True):
    """The steps of one version of a workflow, as JSON. What has begun with a version keeps it."""

    __tablename__: ClassVar[Any] = "workflow_versions"

    project_id: str = Field(sa_column=columns.key())
    workflow_id: str = Field(sa_column=columns.key())
    version: int = Field(sa_column=columns.key(type_=Integer))
    steps: str = Field(sa_column=columns.fixed(Text))
    created_at: int = Field(sa_column=columns.fixed(BigInteger))


class Execution(SQLModel, table=True):
    """One run of a version of a workflow. The planner's columns are explained there."""

    __tablename__: ClassVar[Any] = "executions"
    __table_args__: ClassVar[Any] = (
        columns.one_of("status", EXECUTION_STATUSES),
        columns.one_of("phase", PHASES),
        CheckConstraint("(status = 'running') = (completed_at IS NULL)", name="ended_is_completed"),
        Index("executions_by_workflow", "project_id", "workflow_id", "id", "status"),
        Index("executions_by_status", "project_id", "status", "id"),
        columns.partial("executions_by_parent", "project_id", "parent_id", "id", where=OF_PARENT),
        columns.partial("executions_postponed", "id", where=POSTPONED),
    )

    project_id: str = Field(sa_column=columns.key())
    id: str = Field(sa_column=columns.key())
    workflow_id: str = Field(sa_column=columns.fixed(String))
    version: int = Field(sa_column=columns.fixed(Integer))
    # Of the tasks of its steps, as a task has it.
    priority: int = Field(sa_column=columns.fixed(Integer))
    created_at: int = Field(sa_column=columns.fixed(BigInteger))
    status: str = Field(default="running", sa_column=columns.changing(String))
    phase: str = Field(default="forward", sa_column=columns.changing(String))
    # Steps that have not ended, and those of them that are about to begin or run.
    open: int = Field(default=0, sa_column=columns.changing(Integer))
    active: int = Field(default=0, sa_column=columns.changing(Integer))
    # Whether what was completed is undone once what runs has ended.
    compensates: int = Field(default=0, sa_column=columns.changing(Integer))
    # The place of the step that is undone next.
    undo_next: int | None = Field(default=None, sa_column=columns.changing(Integer, nullable=True))
    # Approvals that are waited for.
    approvals: int = Field(default=0, sa_column=columns.changing(Integer))
    # How often it was begun again after it had ended.
    retries: int = Field(default=0, sa_column=columns.changing(Integer))
    # The step of another execution that it was begun for, which of its items, and how deep it stands below the first.
    parent_id: str | None = Field(default=None, sa_column=columns.fixed(String, nullable=True))
    parent_step: str | None = Field(default=None, sa_column=columns.fixed(String, nullable=True))
    parent_item: int | None = Field(default=None, sa_column=columns.fixed(Integer, nullable=True))
    depth: int = Field(default=0, sa_column=columns.fixed(Integer))
    # 1 where it is still to begin, or to be stopped, for want of room.
    postponed: int | None = Field(default=None, sa_column=columns.changing(Integer, nullable=True))
    completed_at: int | None = Field(default=None, sa_column=columns.changing(BigInteger, nullable=True))
    cancel_requested_at: int | None = Field(default=None, sa_column=columns.changing(BigInteger, nullable=True))
    error_code: str | None = Field(default=None, sa_column=columns.changing(String, nullable=True))
    error_message: str | None = Field(default=None, sa_column=columns.changing(Text, nullable=True))


class ExecutionStep(SQLModel, table=True):
    """A step of an execution, by its place in the graph of the version. The planner's columns are explained there."""

    __tablename__: ClassVar[Any] = "execution_steps"
    __table_args__: ClassVar[Any] = (
        columns.one_of("status", STEP_STATUSES),
        columns.partial("execution_steps_by_due_at", "due_at", where=DUE),
    )

    project_id: str = Field(sa_column=columns.key())
    execution_id: str = Field(sa_column=columns.key())
    place: int = Field(sa_column=columns.key(type_=Integer))
    # Steps in front of it that have not ended.
    unmet: int = Field(default=0, sa_column=columns.changing(Integer))
    status: str = Field(default="pending", sa_column=columns.changing(String))
    # Of `for_each`: how many items there are, None before that is known and for a step without.
    items: int | None = Field(default=None, sa_column=columns.changing(Integer, nullable=True))
    # Items that were begun, run, and were completed, in the present round.
    begun: int = Field(default=0, sa_column=columns.changing(Integer))
    running: int = Field(default=0, sa_column=columns.changing(Integer))
    completed: int = Field(default=0, sa_column=columns.changing(Integer))
    # Items that had been completed before the present round, which began with the task or execution of this id.
    kept: int = Field(default=0, sa_column=columns.changing(Integer))
    round_from: str | None = Field(default=None, sa_column=columns.changing(String, nullable=True))
    # The first and the last task or execution that was made for it.
    first_id: str | None = Field(default=None, sa_column=columns.changing(String, nullable=True))
    last_id: str | None = Field(default=None, sa_column=columns.changing(String, nullable=True))
    # What ended it from outside: `approved`, `rejected` or `timed_out`.
    decision: str | None = Field(default=None, sa_column=columns.changing(String, nullable=True))
    # Bytes of its results so far.
    bytes: int = Field(default=0, sa_column=columns.changing(Integer))
    # The place of the step that is undone after it, and how far its own undoing is: `pending`, `running`, or an end.
    undo_next: int | None = Field(default=None, sa_column=columns.changing(Integer, nullable=True))
    compensation: str | None = Field(default=None, sa_column=columns.changing(String, nullable=True))
    started_at: int | None = Field(default=None, sa_column=columns.changing(BigInteger, nullable=True))
    completed_at: int | None = Field(default=None, sa_column=columns.changing(BigInteger, nullable=True))
    due_at: int | None = Field(default=None, sa_column=columns.changing(BigInteger, nullable=True))
    error_code: str | None = Field(default=None, sa_column=columns.changing(String, nullable=True))
    error_message: str | None = Field(default=None, sa_column=columns.changing(Text, nullable=True))


class ExecutionValue(SQLModel, table=True):
    """The text of a JSON value of an execution: its `parameters` (place 0); of a step its `output`, and its `input`
    where no task has that; its own `result` (place 0), where another execution waits for it.
    """

    __tablename__: ClassVar[Any] = "execution_values"

    project_id: str = Field(sa_column=columns.key())
    execution_id: str = Field(sa_column=columns.key())
    name: str = Field(sa_column=columns.key())
    place: int = Field(sa_column=columns.key(type_=Integer))
    value: str = Field(sa_column=columns.fixed(Text))

"""Rows as the code handles them: one light struct per table, made from the table so that no field is listed twice.

A SQLModel instance costs 17 microseconds, a struct well under one, and every task passes here several times. To the
type checker each row *is* its table class, with the same fields; at run time it is a `msgspec.Struct` of those fields
and defaults. A row that came from the store is never changed in place: `copy_of(row)` gives one to change.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from sqlalchemy import Table
from sqlmodel import SQLModel

from ao_server.store import tables, workflow_tables

RowType = TypeVar("RowType")

TABLES: dict[type[Any], Table] = {}


def _row(model: type[SQLModel]) -> type[msgspec.Struct]:
    fields: list[Any] = []
    for name, field in model.model_fields.items():
        annotated: tuple[Any, ...] = (name, field.annotation)
        fields.append(annotated if field.is_required() else (*annotated, field.default))
    # Defaults are left out where rows are kept as JSON, in events above all: they are most of a new task. Rows hold
    # plain values alone, so the garbage collector need not look at them.
    row = msgspec.defstruct(model.__name__, fields, omit_defaults=True, gc=False, namespace={"__doc__": model.__doc__})
    TABLES[row] = SQLModel.metadata.tables[str(vars(model)["__tablename__"])]
    return row


def values_of(row: Any) -> tuple[Any, ...]:
    """The row's values in column order."""
    return msgspec.structs.astuple(row)


def made(row: type[RowType], values: Sequence[Any]) -> RowType:
    """A row from its values in column order."""
    make: Any = row
    return make(*values)


def copy_of(row: RowType) -> RowType:
    """A copy to change; the original stays as the writer knows it."""
    it: Any = row
    return it.__copy__()


class Event(msgspec.Struct, array_like=True, gc=False):
    """One change, written in the transaction that made it, as part of a portion. `body` is the JSON of the row after.
    The order of the fields is how it is stored.
    """

    project_id: str
    position: int
    type: str
    timestamp: int
    body: str
    agent_id: str | None = None
    task_id: str | None = None
    workflow_id: str | None = None
    execution_id: str | None = None


if TYPE_CHECKING:
    from ao_server.store.tables import (
        Agent,
        AuditRecord,
        Credential,
        EventPortion,
        Feed,
        IdempotencyKey,
        LogLine,
        Payload,
        Project,
        Registration,
        Result,
        Rollup,
        Task,
        TaskCount,
        TaskLabel,
    )
    from ao_server.store.workflow_tables import Execution, ExecutionStep, ExecutionValue, Workflow, WorkflowVersion
else:
    Agent = _row(tables.Agent)
    AuditRecord = _row(tables.AuditRecord)
    Credential = _row(tables.Credential)
    EventPortion = _row(tables.EventPortion)
    Execution = _row(workflow_tables.Execution)
    ExecutionStep = _row(workflow_tables.ExecutionStep)
    ExecutionValue = _row(workflow_tables.ExecutionValue)
    Feed = _row(tables.Feed)
    IdempotencyKey = _row(tables.IdempotencyKey)
    LogLine = _row(tables.LogLine)
    Payload = _row(tables.Payload)
    Project = _row(tables.Project)
    Registration = _row(tables.Registration)
    Result = _row(tables.Result)
    Rollup = _row(tables.Rollup)
    Task = _row(tables.Task)
    TaskCount = _row(tables.TaskCount)
    TaskLabel = _row(tables.TaskLabel)
    Workflow = _row(workflow_tables.Workflow)
    WorkflowVersion = _row(workflow_tables.WorkflowVersion)

__all__ = [
    "TABLES",
    "Agent",
    "AuditRecord",
    "Credential",
    "Event",
    "EventPortion",
    "Execution",
    "ExecutionStep",
    "ExecutionValue",
    "Feed",
    "IdempotencyKey",
    "LogLine",
    "Payload",
    "Project",
    "Registration",
    "Result",
    "Rollup",
    "Task",
    "TaskCount",
    "TaskLabel",
    "Workflow",
    "WorkflowVersion",
    "copy_of",
    "made",
    "values_of",
]

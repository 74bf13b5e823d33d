"""Reads of executions, their steps, and what ran for these."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from ao_server.errors import Invalid
from ao_server.store import rows, tables, workflow_tables
from ao_server.store.reader import Page, Reader

SHOWN_PER_STEP: Final = 100
_EXECUTION: Any = workflow_tables.Execution
_STEP: Any = workflow_tables.ExecutionStep
_TASK: Any = tables.Task


@dataclass(frozen=True, slots=True)
class ExecutionFilter:
    """Which executions a list shows. Ids are compared with `id_from` (inclusive) and `id_before` (exclusive): an id
    begins with its time.
    """

    workflow_id: str | None = None
    status: str | None = None
    id_from: str | None = None
    id_before: str | None = None


@dataclass(frozen=True, slots=True)
class Ran:
    """What ran for steps: by step id the first ids of tasks and of executions, oldest first; by task id attempts."""

    task_ids: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])
    execution_ids: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])
    attempts: Mapping[str, int] = field(default_factory=dict[str, int])


async def get(reader: Reader, project_id: str, execution_id: str) -> rows.Execution | None:
    """One execution."""
    return await reader.one(rows.Execution, _EXECUTION.project_id == project_id, _EXECUTION.id == execution_id)


async def page(
    reader: Reader,
    project_id: str,
    chosen: ExecutionFilter,
    *,
    page: int,
    limit: int,
    starting_after: str | None = None,
) -> Page[rows.Execution]:
    """A page of executions, newest first, by its number or behind one. Invalid when that does not exist."""
    where = _where(project_id, chosen)
    counted = select(func.count()).select_from(workflow_tables.Execution).where(*where)
    async with reader.connect() as connection:
        total = (await connection.execute(counted)).scalar_one()
        if starting_after is not None:
            known = (_EXECUTION.project_id == project_id, _EXECUTION.id == starting_after)
            if not await reader.rows(connection, rows.Execution, *known):
                raise Invalid.field("starting_after", "there is no such execution")
            where.append(_EXECUTION.id < starting_after)
        found = await reader.rows(
            connection, rows.Execution, *where, order=_EXECUTION.id.desc(), limit=limit, offset=(page - 1) * limit
        )
    return Page(found, total)


async def steps(reader: Reader, project_id: str, execution_id: str) -> Sequence[rows.ExecutionStep]:
    """All steps of an execution by their places, joins among them."""
    where = (_STEP.project_id == project_id, _STEP.execution_id == execution_id)
    async with reader.connect() as connection:
        return await reader.rows(connection, rows.ExecutionStep, *where, order=_STEP.place)


async def step(reader: Reader, project_id: str, execution_id: str, place: int) -> rows.ExecutionStep | None:
    """The step in this place."""
    return await reader.one(
        rows.ExecutionStep,
        _STEP.project_id == project_id,
        _STEP.execution_id == execution_id,
        _STEP.place == place,
    )


async def next_due_at(reader: Reader) -> int | None:
    """When the next step is due, of every project; None when none is."""
    statement = select(func.min(_STEP.due_at)).where(_STEP.due_at.is_not(None))
    async with reader.connect() as connection:
        return (await connection.execute(statement)).scalar_one()


async def ran(
    reader: Reader, project_id: str, execution_id: str, last_ids: Collection[str], *, step_id: str | None = None
) -> Ran:
    """What ran for all steps, or for one. `last_ids`: the tasks whose attempts are wanted."""
    tasks = [_TASK.project_id == project_id, _TASK.execution_id == execution_id]
    children = [_EXECUTION.project_id == project_id, _EXECUTION.parent_id == execution_id]
    if step_id is not None:
        tasks.append(_TASK.step_id == step_id)
        children.append(_EXECUTION.parent_step == step_id)
    numbers = select(_TASK.id, _TASK.attempt).where(_TASK.project_id == project_id, _TASK.id.in_(last_ids))
    async with reader.connect() as connection:
        return Ran(
            await _first_ids(connection, _TASK.step_id, _TASK.id, tasks),
            await _first_ids(connection, _EXECUTION.parent_step, _EXECUTION.id, children),
            {task_id: attempt for task_id, attempt in await connection.execute(numbers)},
        )


async def first_waiting(reader: Reader, project_id: str, execution_id: str) -> Mapping[str, rows.Task]:
    """By step id the oldest of its pending tasks, for those that have one."""
    rank = func.row_number().over(partition_by=_TASK.step_id, order_by=_TASK.id)
    pending = (_TASK.project_id == project_id, _TASK.execution_id == execution_id, _TASK.status == "pending")
    ranked = select(_TASK.id.label("id"), rank.label("rank")).where(*pending).subquery()
    first = select(ranked.c.id).where(ranked.c.rank == 1)
    async with reader.connect() as connection:
        found = await reader.rows(connection, rows.Task, _TASK.project_id == project_id, _TASK.id.in_(first))
    return {task.step_id: task for task in found if task.step_id is not None}


async def _first_ids(
    connection: AsyncConnection, step_id: Any, identifier: Any, where: Sequence[ColumnElement[bool]]
) -> Mapping[str, Sequence[str]]:
    rank = func.row_number().over(partition_by=step_id, order_by=identifier)
    ranked = select(step_id.label("step"), identifier.label("id"), rank.label("rank")).where(*where).subquery()
    first = select(ranked.c.step, ranked.c.id).where(ranked.c.rank <= SHOWN_PER_STEP).order_by(ranked.c.id)
    found: defaultdict[str, list[str]] = defaultdict(list)
    for step, each in await connection.execute(first):
        found[step].append(each)
    return found


def _where(project_id: str, chosen: ExecutionFilter) -> list[ColumnElement[bool]]:
    where: list[ColumnElement[bool]] = [_EXECUTION.project_id == project_id]
    if chosen.workflow_id is not None:
        where.append(_EXECUTION.workflow_id == chosen.workflow_id)
    if chosen.status is not None:
        where.append(_EXECUTION.status == chosen.status)
    if chosen.id_from is not None:
        where.append(_EXECUTION.id >= chosen.id_from)
    if chosen.id_before is not None:
        where.append(_EXECUTION.id < chosen.id_before)
    return where

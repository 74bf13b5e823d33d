"""Reads of tasks, with what stands beside them: payload, result, log lines."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, any_, case, func, literal, select, text, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from ao_server.errors import Invalid
from ao_server.store import counts, rows, tables
from ao_server.store.filters import TaskFilter
from ao_server.store.reader import Page, Reader

_TASK: Any = tables.Task
_RESULT: Any = tables.Result
_LOG: Any = tables.LogLine
_LABEL: Any = tables.TaskLabel
_FEED: Any = tables.Feed

# A result of at most this many bytes of text is shown in lists and events.
INLINE_RESULT_BYTES = 16 * 1024
INLINE_LOG_LINES = 100


@dataclass(frozen=True, slots=True)
class TaskDetail:
    """A task with all that is shown of it alone."""

    task: rows.Task
    payload: str
    result: str | None
    logs: Sequence[rows.LogLine]


@dataclass(frozen=True, slots=True)
class ListedTask:
    """A task as lists show it. `result_omitted`: it has a result that is too long for a list."""

    task: rows.Task
    result: str | None
    result_omitted: bool


async def detail(reader: Reader, project_id: str, task_id: str) -> TaskDetail | None:
    """One task with its payload, its result and its last log lines, all of one moment."""
    async with reader.connect() as connection:
        found = await reader.rows(connection, rows.Task, _TASK.project_id == project_id, _TASK.id == task_id)
        if not found:
            return None
        payload: Any = tables.Payload
        payloads = await reader.rows(
            connection, rows.Payload, payload.project_id == project_id, payload.task_id == task_id
        )
        results = await reader.rows(
            connection, rows.Result, _RESULT.project_id == project_id, _RESULT.task_id == task_id
        )
        lines = await reader.rows(
            connection,
            rows.LogLine,
            _LOG.project_id == project_id,
            _LOG.task_id == task_id,
            order=_LOG.number.desc(),
            limit=INLINE_LOG_LINES,
        )
    return TaskDetail(found[0], payloads[0].payload, results[0].result if results else None, lines[::-1])


async def get(reader: Reader, project_id: str, task_id: str) -> rows.Task | None:
    """One task, without what stands beside it."""
    return await reader.one(rows.Task, _TASK.project_id == project_id, _TASK.id == task_id)


async def page(
    reader: Reader, project_id: str, chosen: TaskFilter, *, page: int, limit: int, starting_after: str | None = None
) -> Page[ListedTask]:
    """A page of tasks, newest first, by its number or by the task in front of it. Invalid when that does not exist."""
    where = _conditions(project_id, chosen, is_sqlite=reader.database.is_sqlite)
    async with reader.connect() as connection:
        behind = await _behind(reader, connection, project_id, starting_after)
        total = await _total(connection, project_id, chosen, where)
        if not total:
            return Page([], 0)
        found = await reader.rows(
            connection, rows.Task, *where, *behind, order=_TASK.id.desc(), limit=limit, offset=(page - 1) * limit
        )
        results = await _inline_results(connection, project_id, [task.id for task in found])
    listed = [ListedTask(task, results.get(task.id), task.id in results and results[task.id] is None) for task in found]
    return Page(listed, total)


async def logs(reader: Reader, project_id: str, task_id: str, *, page: int, limit: int) -> Page[rows.LogLine] | None:
    """A page of a task's log lines, oldest first; None when there is no such task."""
    async with reader.connect() as connection:
        found = await reader.rows(connection, rows.Task, _TASK.project_id == project_id, _TASK.id == task_id)
        if not found:
            return None
        first = (page - 1) * limit
        lines = await reader.rows(
            connection,
            rows.LogLine,
            _LOG.project_id == project_id,
            _LOG.task_id == task_id,
            _LOG.number > first,
            order=_LOG.number,
            limit=limit,
        )
    return Page(lines, found[0].log_lines)


async def ahead(reader: Reader, task: rows.Task, limit: int) -> int:
    """How many claimable tasks of its queue go before this one, counted up to `limit`."""
    before = select(_TASK.id).where(
        _TASK.project_id == task.project_id,
        _TASK.queue == task.queue,
        text(tables.CLAIMABLE),
        tuple_(_TASK.priority, _TASK.id) < tuple_(literal(task.priority), literal(task.id)),
    )
    statement = select(func.count()).select_from(before.limit(limit).subquery())
    async with reader.connect() as connection:
        return int((await connection.execute(statement)).scalar_one())


async def next_ready_at(reader: Reader) -> int | None:
    """When the next waiting task becomes claimable, None when none waits."""
    async with reader.connect() as connection:
        statement = select(func.min(_TASK.ready_at)).where(_TASK.ready_at.is_not(None))
        return (await connection.execute(statement)).scalar_one()


async def running(reader: Reader) -> Sequence[rows.Task]:
    """Every running task of every project."""
    # By project: no index begins with the status.
    projects = select(_FEED.project_id)
    async with reader.connect() as connection:
        return await reader.rows(connection, rows.Task, _TASK.project_id.in_(projects), _TASK.status == "running")


def _conditions(project_id: str, chosen: TaskFilter, *, is_sqlite: bool) -> list[Any]:
    where = [_TASK.project_id == project_id]
    if chosen.agent_id is not None:
        where.append(_TASK.agent_id == chosen.agent_id)
    if chosen.status is not None:
        where.append(_TASK.status == chosen.status)
    if chosen.priority is not None:
        where.append(_TASK.priority == chosen.priority)
    if chosen.type is not None:
        where.append(_TASK.type == chosen.type)
    if chosen.agent_type is not None:
        where.append(_TASK.agent_type == chosen.agent_type)
    for key, value in chosen.labels:
        labelled = select(_LABEL.task_id).where(_LABEL.project_id == project_id, _LABEL.key == key)
        if value is not None:
            labelled = labelled.where(_LABEL.value == value)
        # Without statistics PostgreSQL would compare each task with each label.
        where.append(_TASK.id.in_(labelled) if is_sqlite else _TASK.id == any_(func.array(labelled.scalar_subquery())))
    if chosen.id_from is not None:
        where.append(_TASK.id >= chosen.id_from)
    if chosen.id_before is not None:
        where.append(_TASK.id < chosen.id_before)
    return where


async def _inline_results(connection: AsyncConnection, project_id: str, ids: Sequence[str]) -> dict[str, str | None]:
    """Results by task id, None in the place of one that is too long for a list."""
    short = case((_RESULT.bytes <= INLINE_RESULT_BYTES, _RESULT.result), else_=None)
    statement = select(_RESULT.task_id, short).where(_RESULT.project_id == project_id, _RESULT.task_id.in_(ids))
    return {task_id: result for task_id, result in await connection.execute(statement)}


async def _behind(
    reader: Reader, connection: AsyncConnection, project_id: str, starting_after: str | None
) -> list[ColumnElement[bool]]:
    if starting_after is None:
        return []
    if not await reader.rows(connection, rows.Task, _TASK.project_id == project_id, _TASK.id == starting_after):
        raise Invalid.field("starting_after", f"there is no task {starting_after}")
    return [_TASK.id < starting_after]


async def _total(connection: AsyncConnection, project_id: str, chosen: TaskFilter, where: Sequence[Any]) -> int:
    if chosen.is_counted:
        return await counts.tasks(connection, project_id, chosen)
    statement = select(func.count()).select_from(tables.Task).where(*where)
    return int((await connection.execute(statement)).scalar_one())

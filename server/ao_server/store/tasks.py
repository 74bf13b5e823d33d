"""Reads of tasks, with what stands beside them: payload, result, log lines."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import func, literal, select, text, tuple_

from ao_server.store import rows, tables
from ao_server.store.database import Database
from ao_server.store.reader import Page, Reader

_TASK: Any = tables.Task
_LOG: Any = tables.LogLine
_FEED: Any = tables.Feed

INLINE_LOG_LINES = 100


@dataclass(frozen=True, slots=True)
class TaskDetail:
    """A task with all that is shown of it alone."""

    task: rows.Task
    payload: str
    result: str | None
    logs: Sequence[rows.LogLine]


async def detail(reader: Reader, project_id: str, task_id: str) -> TaskDetail | None:
    """One task with its payload, its result and its last log lines, all of one moment."""
    found = await reader.fetch(_detail_text(reader.database), (project_id, task_id))
    if not found:
        return None
    *values, payload, result = found[0]
    task = rows.made(rows.Task, values)
    lines: list[rows.LogLine] = []
    if task.log_lines:
        # Lines never change: those up to the number that the task says are those of its moment.
        first = max(0, task.log_lines - INLINE_LOG_LINES)
        parameters = (project_id, task_id, first, task.log_lines)
        lines = [rows.made(rows.LogLine, line) for line in await reader.fetch(_lines_text(reader.database), parameters)]
    return TaskDetail(task, payload, result, lines)


async def get(reader: Reader, project_id: str, task_id: str) -> rows.Task | None:
    """One task, without what stands beside it."""
    found = await reader.fetch(_task_text(reader.database), (project_id, task_id))
    return rows.made(rows.Task, found[0]) if found else None


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
        tuple_(_TASK.priority, _TASK.turn, _TASK.id)
        < tuple_(literal(task.priority), literal(task.turn), literal(task.id)),
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


@cache
def _task_text(database: Database) -> str:
    return database.text(f"SELECT {_columns('t')} FROM tasks t WHERE t.project_id = ? AND t.id = ?")


@cache
def _detail_text(database: Database) -> str:
    return database.text(
        f"SELECT {_columns('t')}, p.payload, r.result FROM tasks t"
        " JOIN payloads p ON p.project_id = t.project_id AND p.task_id = t.id"
        " LEFT JOIN results r ON r.project_id = t.project_id AND r.task_id = t.id"
        " WHERE t.project_id = ? AND t.id = ?"
    )


@cache
def _lines_text(database: Database) -> str:
    columns = ", ".join(column.name for column in rows.TABLES[rows.LogLine].columns)
    return database.text(
        f"SELECT {columns} FROM log_lines WHERE project_id = ? AND task_id = ? AND number > ? AND number <= ?"
        " ORDER BY number"
    )


def _columns(name: str) -> str:
    return ", ".join(f'{name}."{column.name}"' for column in rows.TABLES[rows.Task].columns)

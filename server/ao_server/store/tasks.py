"""Reads and selections of tasks, with what stands beside them: payload, result, log lines."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import case, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from ao_server.store import counts, rows, tables
from ao_server.store.changes import Selection
from ao_server.store.database import Database
from ao_server.store.reader import Page, Reader

_TASK: Any = tables.Task
_RESULT: Any = tables.Result
_LOG: Any = tables.LogLine

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


@dataclass(frozen=True, slots=True)
class TaskFilter:
    """Which tasks a list shows. Ids are compared with `id_from` (inclusive) and `id_before` (exclusive): an id begins
    with its creation time.
    """

    agent_id: str | None = None
    status: str | None = None
    priority: int | None = None
    id_from: str | None = None
    id_before: str | None = None


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


async def page(reader: Reader, project_id: str, chosen: TaskFilter, *, page: int, limit: int) -> Page[ListedTask]:
    """A page of tasks, newest first."""
    where = _conditions(project_id, chosen)
    async with reader.connect() as connection:
        found = await reader.rows(
            connection, rows.Task, *where, order=_TASK.id.desc(), limit=limit, offset=(page - 1) * limit
        )
        results = await _inline_results(connection, project_id, [task.id for task in found])
        if chosen.id_from is None and chosen.id_before is None:
            total = await counts.tasks(connection, project_id, chosen.agent_id, chosen.status, chosen.priority)
        else:
            statement = select(func.count()).select_from(tables.Task).where(*where)
            total = int((await connection.execute(statement)).scalar_one())
    listed = [ListedTask(task, results.get(task.id), task.id in results and results[task.id] is None) for task in found]
    return Page(listed, total)


async def running(reader: Reader) -> Sequence[rows.Task]:
    """Every running task of every project."""
    async with reader.connect() as connection:
        return await reader.rows(connection, rows.Task, _TASK.status == "running")


class TaskSelections:
    """The named queries of tasks that writes decide over, compiled for one database."""

    def __init__(self, database: Database) -> None:
        self._mark = "?" if database.is_sqlite else "%s"
        self._lock = "" if database.is_sqlite else " FOR UPDATE"
        self._database = database
        self._task_columns = _columns("tasks", tables.Task)
        self._payload_columns = _columns("payloads", tables.Payload)

    def pending(self, project_id: str, agent_id: str, types: Sequence[str] | None, limit: int) -> Selection:
        """The next tasks of an agent's queue with their payloads: priority first, then age. `types` None: all."""
        mark = self._mark
        among = ""
        parameters: list[Any] = [project_id, agent_id]
        if types is not None:
            among = f" AND tasks.type {self._in_list}"
            parameters.append(self._database.list_parameter(types))
        lock = "" if self._database.is_sqlite else " FOR UPDATE OF tasks"
        sql = (
            f"SELECT {self._task_columns}, {self._payload_columns} FROM tasks"
            " JOIN payloads ON payloads.project_id = tasks.project_id AND payloads.task_id = tasks.id"
            f" WHERE tasks.project_id = {mark} AND tasks.agent_id = {mark} AND tasks.status = 'pending'{among}"
            f" ORDER BY tasks.priority, tasks.id LIMIT {mark}{lock}"
        )
        return Selection(sql, [*parameters, limit], (rows.Task, rows.Payload))

    def held_by(self, project_id: str, agent_id: str, instance_id: str) -> Selection:
        """The tasks that an instance holds."""
        mark = self._mark
        sql = (
            f"SELECT {self._task_columns} FROM tasks"
            f" WHERE project_id = {mark} AND agent_id = {mark} AND status = 'running' AND instance_id = {mark}"
            f" ORDER BY id{self._lock}"
        )
        return Selection(sql, [project_id, agent_id, instance_id], (rows.Task,))

    @property
    def _in_list(self) -> str:
        return "IN (SELECT value FROM json_each(?))" if self._database.is_sqlite else "= ANY(%s)"


def _conditions(project_id: str, chosen: TaskFilter) -> list[Any]:
    where = [_TASK.project_id == project_id]
    if chosen.agent_id is not None:
        where.append(_TASK.agent_id == chosen.agent_id)
    if chosen.status is not None:
        where.append(_TASK.status == chosen.status)
    if chosen.priority is not None:
        where.append(_TASK.priority == chosen.priority)
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


def _columns(name: str, model: Any) -> str:
    return ", ".join(f'{name}."{column.name}"' for column in model.__table__.columns)

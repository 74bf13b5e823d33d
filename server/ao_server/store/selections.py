"""The named queries that writes decide over, compiled for one database. A queue is an agent's, or that of a type.

Each is in the order of an index: for another, SQLite, which has no statistics here, would go through all tasks of a
project.
"""

from collections.abc import Sequence
from itertools import product
from typing import Any, Final

from ao_server.store import rows, tables
from ao_server.store.changes import Selection, ValueSelection
from ao_server.store.database import Database

# Tasks of one priority and turn go by age, as in a lane of their own. Lanes are in the order of dispatch.
LANES: Final = tuple(product(range(4), range(2)))


def lane_of(task: rows.Task) -> int:
    """Which of the lanes the task waits in."""
    return 2 * task.priority + task.turn


class TaskSelections:
    """Selections of tasks."""

    def __init__(self, database: Database) -> None:
        self._mark = "?" if database.is_sqlite else "%s"
        self._lock = "" if database.is_sqlite else " FOR UPDATE OF tasks"
        self._database = database
        self._task_columns = _columns("tasks", tables.Task)

    def head(self, project_id: str, queue: str, types: Sequence[str] | None, limit: int) -> ValueSelection:
        """Lane and id of claimable tasks of a queue: of each lane the oldest, at most `limit`.

        `types` None: of every type.
        """
        mark = self._mark
        among = "" if types is None else f" AND type {self._in_list}"
        parts: list[str] = []
        parameters: list[Any] = []
        for lane, (priority, turn) in enumerate(LANES):
            parts.append(
                f"SELECT * FROM (SELECT {lane} AS lane, id FROM tasks WHERE project_id = {mark} AND queue = {mark}"
                f" AND {tables.CLAIMABLE} AND priority = {priority} AND turn = {turn}{among}"
                f" ORDER BY id LIMIT {mark}) AS of{lane}"
            )
            parameters += [project_id, queue]
            if types is not None:
                parameters.append(self._database.list_parameter(types))
            parameters.append(limit)
        return ValueSelection(" UNION ALL ".join(parts), parameters)

    def held_by(self, project_id: str, agent_id: str, instance_id: str) -> Selection:
        """The tasks that an instance holds."""
        mark = self._mark
        return self._tasks(
            f"project_id = {mark} AND agent_id = {mark} AND {tables.UNFINISHED} AND (status = 'running') IS TRUE"
            f" AND instance_id = {mark} ORDER BY id",
            [project_id, agent_id, instance_id],
        )

    def unfinished(self, project_id: str, agent_id: str, limit: int) -> Selection:
        """Some of an agent's pending and running tasks."""
        mark = self._mark
        return self._tasks(
            f"project_id = {mark} AND agent_id = {mark} AND {tables.UNFINISHED} ORDER BY id LIMIT {mark}",
            [project_id, agent_id, limit],
        )

    def claimable_of_type(self, project_id: str, queue: str, type_: str, limit: int) -> Selection:
        """Some of a queue's claimable tasks of one type."""
        mark = self._mark
        return self._tasks(
            f"project_id = {mark} AND queue = {mark} AND {tables.CLAIMABLE} AND type = {mark}"
            f" ORDER BY priority, turn, id LIMIT {mark}",
            [project_id, queue, type_, limit],
        )

    def ready(self, now: int, limit: int) -> Selection:
        """Waiting tasks whose time has come, of every project."""
        mark = self._mark
        return self._tasks(f"ready_at <= {mark} ORDER BY ready_at LIMIT {mark}", [now, limit])

    def _tasks(self, rest: str, parameters: list[Any]) -> Selection:
        return Selection(f"SELECT {self._task_columns} FROM tasks WHERE {rest}{self._lock}", parameters, (rows.Task,))

    @property
    def _in_list(self) -> str:
        return "IN (SELECT value FROM json_each(?))" if self._database.is_sqlite else "= ANY(%s)"


def _columns(name: str, model: Any) -> str:
    return ", ".join(f'{name}."{column.name}"' for column in model.__table__.columns)

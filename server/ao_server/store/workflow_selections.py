"""The named queries that executions are decided over, compiled for one database."""

from typing import Any, Final

from ao_server.store import rows, tables, workflow_tables
from ao_server.store.changes import Selection, ValueSelection
from ao_server.store.database import Database


class WorkflowSelections:
    """Selections of what belongs to executions."""

    # Those of executions that were completed, unless they were too large.
    _RESULTS: Final = (
        "FROM executions e JOIN execution_values v"
        " ON v.project_id = e.project_id AND v.execution_id = e.id AND v.place = 0"
        f" AND v.name = '{workflow_tables.RESULT}'"
    )

    def __init__(self, database: Database) -> None:
        self._mark = "?" if database.is_sqlite else "%s"
        self._is_sqlite = database.is_sqlite

    def unfinished_tasks(self, project_id: str, execution_id: str) -> Selection:
        """Its pending and running tasks."""
        mark = self._mark
        return self._rows(
            rows.Task,
            f"project_id = {mark} AND execution_id = {mark} AND {tables.UNFINISHED} ORDER BY id",
            [project_id, execution_id],
        )

    def running_children(self, project_id: str, execution_id: str) -> Selection:
        """The executions that its steps have begun and that have not ended."""
        mark = self._mark
        return self._rows(
            rows.Execution,
            f"project_id = {mark} AND parent_id = {mark} AND status = 'running' ORDER BY id",
            [project_id, execution_id],
        )

    def pending_steps(self, project_id: str, execution_id: str) -> Selection:
        """Its steps that have not begun."""
        mark = self._mark
        return self._rows(
            rows.ExecutionStep,
            f"project_id = {mark} AND execution_id = {mark} AND status = 'pending' ORDER BY place",
            [project_id, execution_id],
        )

    def postponed_executions(self, limit: int) -> Selection:
        """The oldest of those that are to be carried on, of every project."""
        mark = self._mark
        return self._rows(rows.Execution, f"{workflow_tables.POSTPONED} ORDER BY id LIMIT {mark}", [limit])

    def due_steps(self, now: int, limit: int) -> Selection:
        """Steps whose time is over, of every project."""
        mark = self._mark
        return self._rows(rows.ExecutionStep, f"due_at <= {mark} ORDER BY due_at LIMIT {mark}", [now, limit])

    def results_of_tasks(self, project_id: str, execution_id: str, step_id: str, first_id: str) -> ValueSelection:
        """Item and result of the completed tasks of a step with items; the first of its tasks had this id."""
        mark = self._mark
        return ValueSelection(
            "SELECT t.item, r.result FROM tasks t JOIN results r ON r.project_id = t.project_id AND r.task_id = t.id"
            f" WHERE t.project_id = {mark} AND t.execution_id = {mark} AND t.id >= {mark} AND t.step_id = {mark}"
            " AND t.item IS NOT NULL",
            (project_id, execution_id, first_id, step_id),
        )

    def results_of_children(self, project_id: str, execution_id: str, step_id: str, first_id: str) -> ValueSelection:
        """Item and result of the completed executions of a step with items; the first of them had this id."""
        mark = self._mark
        return ValueSelection(
            f"SELECT e.parent_item, v.value {self._RESULTS}"
            f" WHERE e.project_id = {mark} AND e.parent_id = {mark} AND e.id >= {mark} AND e.parent_step = {mark}"
            " AND e.parent_item IS NOT NULL",
            (project_id, execution_id, first_id, step_id),
        )

    def completed_tasks(
        self, project_id: str, execution_id: str, step_id: str, first_id: str, before_id: str | None
    ) -> ValueSelection:
        """The items of a step that its tasks have completed, from the first to the last before this one."""
        mark = self._mark
        until, parameters = ("", ()) if before_id is None else (f" AND id < {mark}", (before_id,))
        return ValueSelection(
            f"SELECT item FROM tasks WHERE project_id = {mark} AND execution_id = {mark} AND id >= {mark}"
            f" AND step_id = {mark} AND status = 'completed' AND item IS NOT NULL{until}",
            (project_id, execution_id, first_id, step_id, *parameters),
        )

    def completed_children(
        self, project_id: str, execution_id: str, step_id: str, first_id: str, before_id: str | None
    ) -> ValueSelection:
        """The items of a step that its executions have results of, from the first to the last before this one."""
        mark = self._mark
        until, parameters = ("", ()) if before_id is None else (f" AND e.id < {mark}", (before_id,))
        return ValueSelection(
            f"SELECT e.parent_item {self._RESULTS}"
            f" WHERE e.project_id = {mark} AND e.parent_id = {mark} AND e.id >= {mark} AND e.parent_step = {mark}"
            f" AND e.parent_item IS NOT NULL{until}",
            (project_id, execution_id, first_id, step_id, *parameters),
        )

    def _rows(self, row: type[Any], rest: str, parameters: list[Any]) -> Selection:
        table = rows.TABLES[row]
        columns = ", ".join(f'{table.name}."{column.name}"' for column in table.columns)
        lock = "" if self._is_sqlite else f" FOR UPDATE OF {table.name}"
        return Selection(f"SELECT {columns} FROM {table.name} WHERE {rest}{lock}", parameters, (row,))

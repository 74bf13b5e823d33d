"""Stopping a task on request: at once while it waits, through its process while it runs, in the end without it."""

from collections.abc import Callable
from typing import Final

from ao_server.engine import transitions
from ao_server.errors import Conflict, NotFound
from ao_server.store import rows
from ao_server.store.changes import Changes, Found, Key, Operation

# How long the process of a running task has to confirm.
CONFIRM_MICROSECONDS: Final = 30_000_000


def cancel(project_id: str, task_id: str, requested: Callable[[rows.Task], None]) -> Operation[rows.Task]:
    """Cancels a task; `requested` is told of it after the commit, to reach the process of a running one.

    NotFound; Conflict when it is completed or failed.
    """

    def decide(found: Found, now: int) -> Changes[rows.Task]:
        task = found.get(rows.Task, project_id, task_id)
        if task is None:
            raise NotFound("there is no such task")
        match task.status:
            case "pending":
                return transitions.cancel(task, transitions.STOPPED, now)
            case "running" if task.cancel_requested_at is None:
                return transitions.request_cancel(task, now)
            case "running" | "cancelled":
                return Changes(task)
            case _:
                raise Conflict(f"the task is {task.status} already")

    return Operation(decide, keys=[Key(rows.Task, (project_id, task_id))], delivered=requested)

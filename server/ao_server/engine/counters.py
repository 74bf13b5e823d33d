"""What a change of a task adds to the counters."""

from typing import Any

from ao_server.store import rows

MICROSECONDS_A_MINUTE = 60_000_000


def moved(before: rows.Task | None, after: rows.Task) -> list[Any]:
    """The increments of a task's change of status, or of its creation."""
    increments: list[Any] = []
    if before is not None:
        increments.append(_count(before, tasks=-1))
    increments.append(_count(after, tasks=1, duration=duration(after) if after.status == "completed" else 0))
    if after.status in ("completed", "failed") and after.completed_at is not None:
        completed = after.status == "completed"
        increments.append(
            rows.Rollup(
                project_id=after.project_id,
                minute=after.completed_at // MICROSECONDS_A_MINUTE,
                completed=int(completed),
                failed=int(not completed),
                duration=duration(after) if completed else 0,
            )
        )
    return increments


def duration(task: rows.Task) -> int:
    """Start to completion in microseconds, 0 for a task that has not both."""
    if task.started_at is None or task.completed_at is None:
        return 0
    return max(0, task.completed_at - task.started_at)


def _count(task: rows.Task, *, tasks: int, duration: int = 0) -> rows.TaskCount:
    return rows.TaskCount(
        project_id=task.project_id,
        agent_id=task.agent_id,
        agent_type=task.agent_type,
        type=task.type,
        priority=task.priority,
        status=task.status,
        tasks=tasks,
        duration=duration,
    )

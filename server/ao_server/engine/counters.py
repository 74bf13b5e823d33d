"""What the changes of a transaction add to the counters."""

from collections.abc import Iterable
from typing import Any

from ao_server.store import rows
from ao_server.store.changes import Change

MICROSECONDS_A_MINUTE = 60_000_000

# Where a task is counted: project, agent, type of agent, type, priority, status.
_Cell = tuple[str, str, str, str, int, str]


def of(changes: Iterable[Change]) -> list[Any]:
    """Rows to add to the counters, one for each key: what entered and left each cell, and what finished."""
    cells: dict[_Cell, list[int]] = {}
    minutes: dict[tuple[str, int], list[int]] = {}
    for before, after in changes:
        if type(after) is not rows.Task:
            continue
        there = _cell(after)
        if before is not None:
            here = _cell(before)
            if here == there:
                continue
            cells.setdefault(here, [0, 0])[0] -= 1
        entered = cells.setdefault(there, [0, 0])
        entered[0] += 1
        if after.status in ("completed", "failed") and after.completed_at is not None:
            finished = minutes.setdefault((after.project_id, after.completed_at // MICROSECONDS_A_MINUTE), [0, 0, 0])
            if after.status == "completed":
                finished[0] += 1
                finished[2] += duration(after)
                entered[1] += duration(after)
            else:
                finished[1] += 1
    return [
        *(_count(cell, tasks, took) for cell, (tasks, took) in cells.items() if tasks),
        *(_rollup(minute, finished) for minute, finished in minutes.items()),
    ]


def duration(task: rows.Task) -> int:
    """Start to completion in microseconds, 0 for a task that has not both."""
    if task.started_at is None or task.completed_at is None:
        return 0
    return max(0, task.completed_at - task.started_at)


def _cell(task: rows.Task) -> _Cell:
    return (task.project_id, task.agent_id, task.agent_type, task.type, task.priority, task.status)


def _count(cell: _Cell, tasks: int, took: int) -> rows.TaskCount:
    project_id, agent_id, agent_type, type_, priority, status = cell
    return rows.TaskCount(
        project_id=project_id,
        agent_id=agent_id,
        agent_type=agent_type,
        type=type_,
        priority=priority,
        status=status,
        tasks=tasks,
        duration=took,
    )


def _rollup(minute: tuple[str, int], finished: list[int]) -> rows.Rollup:
    completed, failed, took = finished
    return rows.Rollup(project_id=minute[0], minute=minute[1], completed=completed, failed=failed, duration=took)

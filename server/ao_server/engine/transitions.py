"""How a task moves: row, counters and event together, always. Every change of a task's status is made here."""

import math
from dataclasses import dataclass
from typing import Any, Final

from ao_server.engine import bodies, counters, states
from ao_server.store import rows
from ao_server.store.changes import Changes

MAX_DELIVERIES: Final = 5
# Ten years, in microseconds.
MAX_ESTIMATE: Final = 10 * 365 * 86_400 * 1_000_000


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a task failed: a stable code and a text for people."""

    code: str
    message: str


def create(task: rows.Task, payload: str) -> Changes[rows.Task]:
    """A new pending task."""
    row = rows.Payload(project_id=task.project_id, task_id=task.id, payload=payload)
    return Changes(
        task,
        rows=[task, row],
        increments=counters.moved(None, task),
        events=[bodies.task_event("task_created", task, task.created_at)],
    )


def claim(task: rows.Task, instance_id: str, now: int) -> Changes[rows.Task]:
    """A new attempt, held by this instance. The attempt's number is the fencing token from here on."""
    after = rows.copy_of(task)
    after.status = states.task_after(task.status, "claim")
    after.attempt += 1
    after.deliveries += 1
    after.instance_id = instance_id
    after.started_at = now
    return _moved("task_started", task, after, now)


def complete(task: rows.Task, result: str, now: int) -> Changes[rows.Task]:
    """The counted outcome: a result."""
    after = _ended(task, "complete", now)
    after.progress = 100.0
    size = len(result.encode())
    row = rows.Result(project_id=task.project_id, task_id=task.id, bytes=size, result=result)
    return _moved("task_completed", task, after, now, row)


def fail(task: rows.Task, failure: Failure, now: int) -> Changes[rows.Task]:
    """The counted outcome: a failure."""
    after = _ended(task, "fail", now)
    after.error_code = failure.code
    after.error_message = failure.message
    return _moved("task_failed", task, after, now)


def cancel(task: rows.Task, failure: Failure, now: int) -> Changes[rows.Task]:
    """The counted outcome: cancelled, and why."""
    after = _ended(task, "cancel", now)
    after.error_code = failure.code
    after.error_message = failure.message
    return _moved("task_cancelled", task, after, now)


def hand_back(task: rows.Task, now: int) -> Changes[rows.Task]:
    """Back to the queue through nobody's fault: the delivery does not count."""
    after = _requeued(task)
    after.deliveries -= 1
    return _moved("task_requeued", task, after, now)


def lose(task: rows.Task, now: int) -> Changes[rows.Task]:
    """The lease of its holder ran out: back to the queue, or failed after too many deliveries."""
    if task.deliveries >= MAX_DELIVERIES:
        message = f"its runner was lost {task.deliveries} times while it ran"
        return fail(task, Failure("lost", message), now)
    return _moved("task_requeued", task, _requeued(task), now)


def progress(task: rows.Task, percent: float, message: str | None, now: int) -> Changes[None]:
    """A report of progress: no change of status."""
    after = rows.copy_of(task)
    after.progress = percent
    if message is not None:
        after.progress_message = message
    started = task.started_at if task.started_at is not None else now
    after.estimated_completion = _estimate(started, now, percent)
    return Changes(None, rows=[after], events=[bodies.task_event("task_progress", after, now)])


def _estimate(started: int, now: int, percent: float) -> int | None:
    """When all will be done if it goes on as it went; None when that is nobody's guess."""
    total = (now - started) * 100 / percent if percent > 0 else math.inf
    return started + round(total) if total <= MAX_ESTIMATE else None


def _ended(task: rows.Task, event: str, now: int) -> rows.Task:
    after = rows.copy_of(task)
    after.status = states.task_after(task.status, event)
    after.completed_at = max(now, task.created_at)
    after.estimated_completion = None
    return after


def _requeued(task: rows.Task) -> rows.Task:
    after = rows.copy_of(task)
    after.status = states.task_after(task.status, "requeue")
    after.instance_id = None
    after.started_at = None
    after.progress = 0.0
    after.progress_message = None
    after.estimated_completion = None
    return after


def _moved(
    type_: str, before: rows.Task, after: rows.Task, now: int, result: rows.Result | None = None
) -> Changes[rows.Task]:
    beside: list[Any] = [] if result is None else [result]
    return Changes(
        after,
        rows=[after, *beside],
        increments=counters.moved(before, after),
        events=[bodies.task_event(type_, after, now, result)],
    )

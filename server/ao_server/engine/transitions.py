"""How a task moves: row, counters and event together, always. Every change of a task's status is made here."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from ao_server.engine import bodies, states
from ao_server.store import rows
from ao_server.store.changes import Changes

# Deliveries that end with the loss of the process; the last one fails the task.
MAX_DELIVERIES: Final = 5
# A task whose process was lost so often may have killed it: it runs alone on its next one.
SUSPECT_DELIVERIES: Final = 2
# How much longer than the runner the server waits before it gives up an attempt for its time-out.
TIMEOUT_GRACE: Final = 10_000_000
# Ten years, in microseconds.
MAX_ESTIMATE: Final = 10 * 365 * 86_400 * 1_000_000


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a task failed: a stable code and a text for people. `is_final`: no other attempt may follow."""

    code: str
    message: str
    is_final: bool = False


STOPPED: Final = Failure("cancelled", "cancelled on request")


def create(task: rows.Task, payload: str, labels: Mapping[str, str]) -> Changes[rows.Task]:
    """A new pending task."""
    beside: list[Any] = [rows.Payload(project_id=task.project_id, task_id=task.id, payload=payload)]
    for key, value in labels.items():
        beside.append(rows.TaskLabel(project_id=task.project_id, key=key, value=value, task_id=task.id))
    return Changes(
        task,
        rows=[task, *beside],
        events=[bodies.task_event("task_created", task, task.created_at)],
    )


def claim(task: rows.Task, agent_id: str, instance_id: str, timeout: int, now: int) -> Changes[rows.Task]:
    """A new attempt, held by this instance. The attempt's number is the fencing token from here on.

    `timeout` in microseconds.
    """
    after = rows.copy_of(task)
    after.status = states.task_after(task.status, "claim")
    after.agent_id = agent_id
    after.attempt += 1
    after.deliveries += 1
    after.instance_id = instance_id
    after.started_at = now
    after.times_out_at = now + timeout + TIMEOUT_GRACE
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
    if task.status == "running":
        after.failures += 1
    return _moved("task_failed", task, _because(after, failure), now)


def cancel(task: rows.Task, reason: Failure, now: int) -> Changes[rows.Task]:
    """The counted outcome: cancelled, and why."""
    return _moved("task_cancelled", task, _because(_ended(task, "cancel", now), reason), now)


def request_cancel(task: rows.Task, now: int) -> Changes[rows.Task]:
    """The running attempt is to stop: no change of status yet."""
    after = rows.copy_of(task)
    after.cancel_requested_at = now
    return Changes(after, rows=[after], events=[bodies.task_event("task_cancel_requested", after, now)])


def back_off(task: rows.Task, wait: int, now: int) -> Changes[rows.Task]:
    """The attempt failed and another follows in `wait` microseconds. What was delivered has been answered: it does not
    count as lost.
    """
    after = _requeued(task)
    after.deliveries -= 1
    after.failures += 1
    after.ready_at = now + wait if wait > 0 else None
    return _moved("task_requeued", task, after, now)


def release(task: rows.Task) -> Changes[rows.Task]:
    """Its time has come: it may be claimed. No event: nothing that was shown as true has become false."""
    after = rows.copy_of(task)
    after.ready_at = None
    return Changes(after, rows=[after])


def hand_back(task: rows.Task, now: int) -> Changes[rows.Task]:
    """Back to the queue through nobody's fault: the delivery does not count. One that was to stop has stopped."""
    if task.cancel_requested_at is not None:
        return cancel(task, STOPPED, now)
    after = _requeued(task)
    after.deliveries -= 1
    return _moved("task_requeued", task, after, now)


def lose(task: rows.Task, now: int) -> Changes[rows.Task]:
    """The lease of its holder ran out: back to the queue, or failed after too many deliveries."""
    if task.cancel_requested_at is not None:
        return cancel(task, STOPPED, now)
    if task.deliveries >= MAX_DELIVERIES:
        # No failure of the task's own: none is counted.
        failure = Failure("lost", f"its runner was lost {task.deliveries} times while it ran")
        return _moved("task_failed", task, _because(_ended(task, "fail", now), failure), now)
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
    after.ready_at = None
    after.times_out_at = None
    return after


def _because(task: rows.Task, failure: Failure) -> rows.Task:
    task.error_code = failure.code
    task.error_message = failure.message
    return task


def _requeued(task: rows.Task) -> rows.Task:
    after = rows.copy_of(task)
    after.status = states.task_after(task.status, "requeue")
    if after.queue != after.agent_id:
        after.agent_id = ""
    after.instance_id = None
    after.started_at = None
    after.times_out_at = None
    after.progress = 0.0
    after.progress_message = None
    after.estimated_completion = None
    return after


def _moved(
    type_: str, before: rows.Task, after: rows.Task, now: int, result: rows.Result | None = None
) -> Changes[rows.Task]:
    beside: list[Any] = [] if result is None else [result]
    event = bodies.task_event(type_, after, now, result)
    # Where it goes back to all agents of a type, it is still an event of the one that had it.
    event.agent_id = event.agent_id or before.agent_id or None
    return Changes(after, rows=[after, *beside], events=[event])

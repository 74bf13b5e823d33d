"""What events carry: JSON bodies written with the change, read by whoever watches.

Decoding is tolerant: a field that an older build did not write has its default.
"""

from typing import Any

import msgspec

from ao_server.store import rows
from ao_server.store.lists import INLINE_RESULT_BYTES


class TaskBody(msgspec.Struct, omit_defaults=True):
    """The task after the change, with a result that is short enough for a list."""

    task: rows.Task
    result: str | None = None
    result_omitted: bool = False


class Line(msgspec.Struct):
    """One log line."""

    timestamp: int
    level: str
    message: str


class LogBody(msgspec.Struct):
    """A batch of log lines of one attempt."""

    task_id: str
    agent_id: str
    attempt: int
    lines: list[Line]


class AgentBody(msgspec.Struct):
    """An agent's change of status."""

    agent_id: str
    name: str
    type: str
    status: str
    previous_status: str


class StepName(msgspec.Struct, omit_defaults=True):
    """What the workflow says of a step, as far as every view of the step shows it."""

    id: str
    name: str
    order: int
    kind: str = "task"
    agent_type: str | None = None
    depends_on: list[str] = []


class WorkflowBody(msgspec.Struct, omit_defaults=True):
    """The execution after the change; with a change of one of its steps the step too, and what it is called."""

    execution: rows.Execution
    step: rows.ExecutionStep | None = None
    definition: StepName | None = None


class AlertBody(msgspec.Struct):
    """A condition of the system that began, or, with the severity `info`, ended. `since`: when it began."""

    code: str
    severity: str
    message: str
    since: int


_AGENT_EVENTS = ("agent_created", "agent_updated", "agent_deleted", "agent_status_change")
_TASK_EVENTS = (
    "task_created",
    "task_started",
    "task_progress",
    "task_requeued",
    "task_cancel_requested",
    "task_completed",
    "task_failed",
    "task_cancelled",
)
_WORKFLOW_EVENTS = (
    "workflow_started",
    "workflow_completed",
    "workflow_failed",
    "workflow_cancelled",
    "workflow_cancel_requested",
    "workflow_step_started",
    "workflow_step_completed",
    "workflow_step_failed",
    "workflow_step_skipped",
    "workflow_step_cancelled",
    "workflow_step_compensation",
)
BODIES: dict[str, type[Any]] = {
    "task_log": LogBody,
    "system_alert": AlertBody,
    **dict.fromkeys(_AGENT_EVENTS, AgentBody),
    **dict.fromkeys(_TASK_EVENTS, TaskBody),
    **dict.fromkeys(_WORKFLOW_EVENTS, WorkflowBody),
}


def task_event(type_: str, task: rows.Task, now: int, result: rows.Result | None = None) -> rows.Event:
    """The event of a task's change."""
    body = TaskBody(task)
    if result is not None:
        body.result_omitted = result.bytes > INLINE_RESULT_BYTES
        body.result = None if body.result_omitted else result.result
    return event(type_, task.project_id, body, now, agent_id=task.agent_id or None, task_id=task.id)


def workflow_event(
    type_: str,
    execution: rows.Execution,
    now: int,
    step: rows.ExecutionStep | None = None,
    name: StepName | None = None,
) -> rows.Event:
    """The event of an execution's change, or of a step of it."""
    made = event(type_, execution.project_id, WorkflowBody(execution, step, name), now, agent_id=None)
    made.workflow_id = execution.workflow_id
    made.execution_id = execution.id
    return made


def event(
    type_: str, project_id: str, body: msgspec.Struct, now: int, *, agent_id: str | None, task_id: str | None = None
) -> rows.Event:
    """An event that has no position yet; the writer gives it one."""
    return rows.Event(
        project_id=project_id,
        position=0,
        type=type_,
        timestamp=now,
        agent_id=agent_id,
        task_id=task_id,
        body=msgspec.json.encode(body).decode(),
    )


def decode(event: rows.Event) -> Any:
    """The body of an event."""
    return msgspec.json.decode(event.body, type=BODIES[event.type])

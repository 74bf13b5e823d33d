"""Rows to messages. Columns are copied by equal name; what is computed or nested is written out here."""

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any, TypeVar

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from agent_orchestration.v1 import common_pb2, events_pb2, executions_pb2, tasks_pb2
from ao_server.engine import bodies, counters, intake, retries
from ao_server.store import rows
from ao_server.store.lists import ListedTask
from ao_server.store.tasks import TaskDetail
from ao_server.store.views import values_getter

MessageType = TypeVar("MessageType", bound=Message)

PRIORITIES: Mapping[common_pb2.Priority.ValueType, int] = {
    common_pb2.PRIORITY_CRITICAL: 0,
    common_pb2.PRIORITY_HIGH: 1,
    common_pb2.PRIORITY_MEDIUM: 2,
    common_pb2.PRIORITY_LOW: 3,
}
# The project and the id.
_KEY_COLUMNS = 2
_APPROVAL = "approval"
_PRIORITY_NUMBERS = {rank: number for number, rank in PRIORITIES.items()}


def filled(message_type: type[MessageType], source: object, **more: Any) -> MessageType:
    """A message with what it and the source (a row or body) both have, by name, and what else is given. None leaves a
    field unset.
    """
    message = message_type(**more)
    _fill(message, source)
    return message


def enum_name(enum: Any, number: int) -> str:
    """The lower-case word that stands for an enum value in the store and in JSON."""
    name: str = enum.DESCRIPTOR.values_by_number[number].name
    return name.removeprefix(_prefix(enum.DESCRIPTOR)).lower()


def task_detail(detail: TaskDetail) -> tasks_pb2.Task:
    """A task as it is shown alone."""
    logs = [log_line(line) for line in detail.logs]
    return task(detail.task, payload=detail.payload, result=detail.result, logs=logs)


def log_line(line: object) -> common_pb2.LogLine:
    """A log line, from the store or from an event."""
    return filled(common_pb2.LogLine, line)


def created_task(row: rows.Task, payload: str) -> tasks_pb2.Task:
    """A task in the moment of its creation, as it is shown alone."""
    return task(row, payload=payload)


def listed_task(listed: ListedTask) -> tasks_pb2.Task:
    """A task as lists show it."""
    return task(listed.task, result=listed.result, result_omitted=listed.result_omitted or None)


def created_tasks(created: Iterable[rows.Task]) -> tasks_pb2.CreateTasksResponse:
    """Tasks in the moment of their creation. Tasks made together are often alike but for their ids."""
    response = tasks_pb2.CreateTasksResponse()
    add = response.data.add
    last = tasks_pb2.Task()
    shared: tuple[Any, ...] = ()
    for row in created:
        shown = add()
        all_but_key = rows.values_of(row)[_KEY_COLUMNS:]
        if all_but_key == shared:
            shown.CopyFrom(last)
            shown.id = row.id
        else:
            _show(row, shown)
            last, shared = shown, all_but_key
    return response


def task(row: rows.Task, **more: Any) -> tasks_pb2.Task:
    """What every view of a task shows, and what this one shows beside it."""
    message = tasks_pb2.Task(**more)
    _show(row, message)
    return message


def _show(row: rows.Task, message: tasks_pb2.Task) -> None:
    _fill(message, row)
    if not row.agent_id:
        message.ClearField("agent_id")
    message.priority = _PRIORITY_NUMBERS[row.priority]
    if row.run_at is None:
        message.schedule.type = tasks_pb2.SCHEDULE_TYPE_IMMEDIATE
    else:
        message.schedule.type = tasks_pb2.SCHEDULE_TYPE_DELAYED
        _set_time(message.schedule.run_at, row.run_at)
    if row.labels is not None:
        message.labels.update(intake.labels_of(row))
    if row.retry is not None:
        message.retry.CopyFrom(filled(tasks_pb2.RetryPolicy, retries.of(row)))
    if row.error_code is not None:
        _set_error(message, row)
    if row.started_at is not None and row.completed_at is not None:
        _set_time(message.duration, counters.duration(row))


def listed_execution(row: rows.Execution) -> executions_pb2.Execution:
    """An execution as lists show it."""
    message = filled(
        executions_pb2.Execution, row, workflow_version=row.version, priority=_PRIORITY_NUMBERS[row.priority]
    )
    if row.approvals > 0:
        message.waiting_for = _APPROVAL
    if row.parent_id is not None:
        message.parent_execution_id = row.parent_id
    if row.parent_step is not None:
        message.parent_step_id = row.parent_step
    if row.status == "failed":
        _set_error(message, row)
    elif row.status == "cancelled":
        message.error.code, message.error.message = "cancelled", "cancelled on request"
    _set_duration(message, row.created_at, row.completed_at)
    return message


def listed_step(row: rows.ExecutionStep, name: bodies.StepName) -> executions_pb2.ExecutionStep:
    """A step of an execution, without its input and output, and what ran for it."""
    message = filled(executions_pb2.ExecutionStep, row)
    _fill(message, name)
    message.depends_on.extend(name.depends_on)
    if name.kind == _APPROVAL and row.status == "running":
        message.waiting_for = _APPROVAL
    if row.items is not None:
        message.items.total = row.items
        message.items.completed = row.kept + row.completed
        message.items.running = row.running
    if "failed" in (row.status, row.compensation):
        _set_error(message, row)
    if row.due_at is not None:
        _set_time(message.times_out_at, row.due_at)
    _set_duration(message, row.started_at, row.completed_at)
    return message


def _told_step(row: rows.ExecutionStep, name: bodies.StepName) -> executions_pb2.ExecutionStep:
    """A step as events show it: with the first and the last of what ran for it."""
    message = listed_step(row, name)
    ran = [each for each in dict.fromkeys((row.first_id, row.last_id)) if each is not None]
    (message.task_ids if name.kind == "task" else message.execution_ids).extend(ran)
    return message


def event(row: rows.Event, cursor: str) -> events_pb2.Event:
    """An event of the feed."""
    body = bodies.decode(row)
    match body:
        case bodies.TaskBody():
            more: dict[str, Any] = {
                "task": task(body.task, result=body.result, result_omitted=body.result_omitted or None)
            }
        case bodies.LogBody():
            lines = [log_line(line) for line in body.lines]
            more = {"task_log": filled(events_pb2.TaskLog, body, lines=lines)}
        case bodies.AlertBody():
            more = {"system_alert": filled(events_pb2.SystemAlert, body)}
        case bodies.WorkflowBody():
            change = events_pb2.WorkflowChange(execution=listed_execution(body.execution))
            if body.step is not None and body.definition is not None:
                change.step.CopyFrom(_told_step(body.step, body.definition))
            more = {"workflow_change": change}
        case _:
            more = {"agent_status_change": filled(events_pb2.AgentStatusChange, body)}
    message = events_pb2.Event(
        cursor=cursor,
        type=events_pb2.EventType.Value(f"EVENT_TYPE_{row.type.upper()}"),
        agent_id=row.agent_id,
        task_id=row.task_id,
        execution_id=row.execution_id,
        workflow_id=row.workflow_id,
        **more,
    )
    _set_time(message.timestamp, row.timestamp)
    return message


def _fill(message: Message, source: object) -> None:
    _filling(message.DESCRIPTOR, type(source))(message, source)


@cache
def _filling(descriptor: Descriptor, source: type[Any]) -> Callable[[Any, Any], None]:
    """Gives a message what a source of this type has for it. All columns are read in one go: this runs for every task
    of every list and event.
    """
    shared = [field for field in descriptor.fields if not field.is_repeated and hasattr(source, field.name)]
    puts = [(field.name, put) for field in shared if (put := _putting(field)) is not None]
    values_of = values_getter(tuple(name for name, _ in puts))

    def fill(message: Any, row: Any) -> None:
        for (name, put), value in zip(puts, values_of(row), strict=True):
            if value is not None:
                put(message, name, value)

    return fill


def _putting(field: FieldDescriptor) -> Callable[[Any, str, Any], None] | None:
    """What gives a message, in the field of this name, a value as rows have it; None where no row has such values."""
    if field.enum_type is not None:
        numbers = _numbers(field.enum_type)

        def put(message: Any, name: str, value: str | int) -> None:
            # A priority is a number in the store and is translated by its own table.
            if isinstance(value, str):
                setattr(message, name, numbers[value])

        return put
    if field.message_type is None:
        return setattr
    return _put_time if field.message_type.full_name.startswith("google.protobuf.") else None


def _put_time(message: Any, name: str, microseconds: int) -> None:
    _set_time(getattr(message, name), microseconds)


def _set_time(time: Timestamp | Duration, microseconds: int) -> None:
    """A time, or a duration that is not negative."""
    time.seconds, rest = divmod(microseconds, 1_000_000)
    time.nanos = rest * 1_000


def _set_error(message: Any, row: rows.Task | rows.Execution | rows.ExecutionStep) -> None:
    message.error.code = row.error_code or ""
    message.error.message = row.error_message or ""


def _set_duration(message: Any, start: int | None, end: int | None) -> None:
    if start is not None and end is not None:
        _set_time(message.duration, max(0, end - start))


def _numbers(enum: Any) -> dict[str, int]:
    prefix = _prefix(enum)
    return {value.name.removeprefix(prefix).lower(): value.number for value in enum.values}


def _prefix(enum: Any) -> str:
    first: str = enum.values[0].name
    return first.removesuffix("UNSPECIFIED")

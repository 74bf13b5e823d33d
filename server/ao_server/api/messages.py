"""Rows to messages. Columns are copied by equal name; what is computed or nested is written out here."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, TypeVar

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from agent_orchestration.v1 import common_pb2, events_pb2, tasks_pb2
from ao_server.engine import bodies, counters, intake, retries
from ao_server.store import rows
from ao_server.store.tasks import ListedTask, TaskDetail

MessageType = TypeVar("MessageType", bound=Message)

PRIORITIES: Mapping[int, int] = {
    common_pb2.PRIORITY_CRITICAL: 0,
    common_pb2.PRIORITY_HIGH: 1,
    common_pb2.PRIORITY_MEDIUM: 2,
    common_pb2.PRIORITY_LOW: 3,
}
_PRIORITY_NUMBERS = {rank: number for number, rank in PRIORITIES.items()}


def fill(message: MessageType, source: object) -> MessageType:
    """Copies what the message and the source (a row or body) both have, by name. None leaves a field unset."""
    for name, put in _copiers(message.DESCRIPTOR):
        value = getattr(source, name, None)
        if value is not None:
            put(message, value)
    return message


def enum_name(enum: Any, number: int) -> str:
    """The lower-case word that stands for an enum value in the store and in JSON."""
    name: str = enum.DESCRIPTOR.values_by_number[number].name
    return name.removeprefix(_prefix(enum.DESCRIPTOR)).lower()


def task_detail(detail: TaskDetail) -> tasks_pb2.Task:
    """A task as it is shown alone."""
    message = task(detail.task)
    message.payload = detail.payload
    if detail.result is not None:
        message.result = detail.result
    message.logs.extend(log_line(line) for line in detail.logs)
    return message


def log_line(line: object) -> common_pb2.LogLine:
    """A log line, from the store or from an event."""
    return fill(common_pb2.LogLine(), line)


def created_task(row: rows.Task, payload: str) -> tasks_pb2.Task:
    """A task in the moment of its creation, as it is shown alone."""
    message = task(row)
    message.payload = payload
    return message


def listed_task(listed: ListedTask) -> tasks_pb2.Task:
    """A task as lists show it."""
    return _with_result(task(listed.task), listed.result, listed.result_omitted)


def task(row: rows.Task) -> tasks_pb2.Task:
    """What every view of a task shows."""
    message = fill(tasks_pb2.Task(), row)
    message.priority = _PRIORITY_NUMBERS[row.priority]  # pyright: ignore[reportAttributeAccessIssue] - an enum's number
    if not row.agent_id:
        message.ClearField("agent_id")
    message.labels.update(intake.labels_of(row))
    message.schedule.type = tasks_pb2.SCHEDULE_TYPE_IMMEDIATE
    if row.run_at is not None:
        message.schedule.type = tasks_pb2.SCHEDULE_TYPE_DELAYED
        message.schedule.run_at.FromMicroseconds(row.run_at)
    if row.retry is not None:
        message.retry.SetInParent()
        fill(message.retry, retries.of(row))
    if row.error_code is not None:
        message.error.code = row.error_code
        message.error.message = row.error_message or ""
    if row.started_at is not None and row.completed_at is not None:
        message.duration.FromMicroseconds(counters.duration(row))
    return message


def event(row: rows.Event, cursor: str) -> events_pb2.Event:
    """An event of the feed."""
    message = events_pb2.Event(cursor=cursor, agent_id=row.agent_id, task_id=row.task_id)
    message.type = events_pb2.EventType.Value(f"EVENT_TYPE_{row.type.upper()}")
    message.timestamp.FromMicroseconds(row.timestamp)
    body = bodies.decode(row)
    match body:
        case bodies.TaskBody():
            message.task.CopyFrom(_with_result(task(body.task), body.result, body.result_omitted))
        case bodies.LogBody():
            fill(message.task_log, body)
            message.task_log.lines.extend(log_line(line) for line in body.lines)
        case bodies.AlertBody():
            fill(message.system_alert, body)
        case _:
            fill(message.agent_status_change, body)
    return message


def _with_result(message: tasks_pb2.Task, result: str | None, omitted: bool) -> tasks_pb2.Task:
    if result is not None:
        message.result = result
    if omitted:
        message.result_omitted = True
    return message


@cache
def _copiers(descriptor: Descriptor) -> list[tuple[str, Callable[[Any, Any], None]]]:
    found = [(field.name, _copier(field)) for field in descriptor.fields if not field.is_repeated]
    return [(name, put) for name, put in found if put is not None]


def _copier(field: FieldDescriptor) -> Callable[[Any, Any], None] | None:
    name = field.name
    if field.message_type is not None:
        if not field.message_type.full_name.startswith("google.protobuf."):
            return None
        return lambda message, value: getattr(message, name).FromMicroseconds(value)
    if field.enum_type is not None:
        numbers = _numbers(field.enum_type)

        def put_enum(message: Any, value: Any) -> None:
            # A priority is a number in the store and is translated by its own table.
            if isinstance(value, str):
                setattr(message, name, numbers[value])

        return put_enum
    return lambda message, value: setattr(message, name, value)


def _numbers(enum: Any) -> dict[str, int]:
    prefix = _prefix(enum)
    return {value.name.removeprefix(prefix).lower(): value.number for value in enum.values}


def _prefix(enum: Any) -> str:
    first: str = enum.values[0].name
    return first.removesuffix("UNSPECIFIED")

"""Rows to messages. Columns are copied by equal name; what is computed or nested is written out here."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, TypeVar

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from agent_orchestration.v1 import common_pb2, events_pb2, tasks_pb2
from ao_server.engine import bodies, counters, intake, retries
from ao_server.store import rows
from ao_server.store.lists import ListedTask
from ao_server.store.tasks import TaskDetail
from ao_server.store.views import values_getter

MessageType = TypeVar("MessageType", bound=Message)

PRIORITIES: Mapping[int, int] = {
    common_pb2.PRIORITY_CRITICAL: 0,
    common_pb2.PRIORITY_HIGH: 1,
    common_pb2.PRIORITY_MEDIUM: 2,
    common_pb2.PRIORITY_LOW: 3,
}
_PRIORITY_NUMBERS = {rank: number for number, rank in PRIORITIES.items()}
_IMMEDIATE = {"type": tasks_pb2.SCHEDULE_TYPE_IMMEDIATE}


def filled(message_type: type[MessageType], source: object, **more: Any) -> MessageType:
    """A message with what it and the source (a row or body) both have, by name, and what else is given. None leaves a
    field unset.
    """
    return message_type(**_fields(message_type.DESCRIPTOR, type(source))(source), **more)


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


def task(row: rows.Task, **more: Any) -> tasks_pb2.Task:
    """What every view of a task shows, and what this one shows beside it."""
    if row.labels is not None:
        more["labels"] = intake.labels_of(row)
    if row.retry is not None:
        more["retry"] = filled(tasks_pb2.RetryPolicy, retries.of(row))
    if row.error_code is not None:
        more["error"] = {"code": row.error_code, "message": row.error_message or ""}
    if row.started_at is not None and row.completed_at is not None:
        more["duration"] = _seconds_and_nanos(counters.duration(row))
    message = filled(
        tasks_pb2.Task, row, priority=_PRIORITY_NUMBERS[row.priority], schedule=_schedule(row.run_at), **more
    )
    if not row.agent_id:
        message.ClearField("agent_id")
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
        case _:
            more = {"agent_status_change": filled(events_pb2.AgentStatusChange, body)}
    return events_pb2.Event(
        cursor=cursor,
        type=events_pb2.EventType.Value(f"EVENT_TYPE_{row.type.upper()}"),
        timestamp=_seconds_and_nanos(row.timestamp),
        agent_id=row.agent_id,
        task_id=row.task_id,
        **more,
    )


def _schedule(run_at: int | None) -> dict[str, Any]:
    if run_at is None:
        return _IMMEDIATE
    return {"type": tasks_pb2.SCHEDULE_TYPE_DELAYED, "run_at": _seconds_and_nanos(run_at)}


def _seconds_and_nanos(microseconds: int) -> Any:
    """A time or a duration that is not negative, as a constructor takes it."""
    seconds, rest = divmod(microseconds, 1_000_000)
    return {"seconds": seconds, "nanos": rest * 1_000}


@cache
def _fields(descriptor: Descriptor, source: type[Any]) -> Callable[[Any], dict[str, Any]]:
    """What a message's constructor takes from a source of this type. Columns of one kind are read in one go: this runs
    for every task of every list and event.
    """
    shared = [field for field in descriptor.fields if not field.is_repeated and hasattr(source, field.name)]
    scalars = [field.name for field in shared if field.message_type is None and field.enum_type is None]
    enums = [(field.name, _numbers(field.enum_type)) for field in shared if field.enum_type is not None]
    times = [field.name for field in shared if _is_time(field)]
    scalars_of = values_getter(tuple(scalars))

    def fields(row: Any) -> dict[str, Any]:
        found = dict(zip(scalars, scalars_of(row), strict=True))
        for name, numbers in enums:
            value = getattr(row, name)
            # A priority is a number in the store and is translated by its own table.
            if isinstance(value, str):
                found[name] = numbers[value]
        for name in times:
            value = getattr(row, name)
            if value is not None:
                found[name] = _seconds_and_nanos(value)
        return found

    return fields


def _is_time(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.full_name.startswith("google.protobuf.")


def _numbers(enum: Any) -> dict[str, int]:
    prefix = _prefix(enum)
    return {value.name.removeprefix(prefix).lower(): value.number for value in enum.values}


def _prefix(enum: Any) -> str:
    first: str = enum.values[0].name
    return first.removesuffix("UNSPECIFIED")

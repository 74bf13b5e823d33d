"""Rows to messages. Columns are copied by equal name; what is computed or nested is written out here."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, TypeVar

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from agent_orchestration.v1 import agents_pb2, common_pb2, events_pb2, tasks_pb2
from ao_server.engine import bodies, counters
from ao_server.engine.registry import Instance
from ao_server.store import rows
from ao_server.store.counts import AgentTotals
from ao_server.store.reader import Page
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


def agent(
    row: rows.Agent, totals: AgentTotals, instances: Sequence[Instance], monotonic: float, lease: float
) -> agents_pb2.Agent:
    """An agent with its metrics and the health of its processes."""
    message = fill(agents_pb2.Agent(), row)
    loads = [instance.session.load for instance in instances if instance.session is not None]
    message.health.status = _health(row, instances, bool(loads), monotonic, lease)
    checked = max((load.at for load in loads), default=0) or row.last_seen_at
    if checked:
        message.health.last_check.FromMicroseconds(checked)
    message.health.uptime.FromMicroseconds(round(max((load.uptime for load in loads), default=0.0) * 1e6))
    metrics = message.metrics
    metrics.tasks_completed = totals.completed
    metrics.tasks_failed = totals.failed
    finished = totals.completed + totals.failed
    metrics.success_rate = round(100 * totals.completed / finished, 2) if finished else 0.0
    metrics.avg_response_time = round(totals.duration / totals.completed / 1000, 3) if totals.completed else 0.0
    if loads:
        metrics.memory_usage = round(sum(load.memory_usage for load in loads) / len(loads), 2)
        metrics.cpu_usage = round(sum(load.cpu_usage for load in loads) / len(loads), 2)
    return message


def task_detail(detail: TaskDetail) -> tasks_pb2.Task:
    """A task as it is shown alone."""
    message = task(detail.task)
    message.payload = detail.payload
    if detail.result is not None:
        message.result = detail.result
    message.logs.extend(fill(common_pb2.LogLine(), line) for line in detail.logs)
    return message


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
            message.task_log.lines.extend(fill(common_pb2.LogLine(), line) for line in body.lines)
        case _:
            fill(message.agent_status_change, body)
    return message


def pagination(page: Page[Any], number: int, limit: int) -> common_pb2.Pagination:
    """Where the page stands."""
    pages = -(-page.total // limit)
    return common_pb2.Pagination(page=number, limit=limit, total=page.total, pages=pages)


def _with_result(message: tasks_pb2.Task, result: str | None, omitted: bool) -> tasks_pb2.Task:
    if result is not None:
        message.result = result
    if omitted:
        message.result_omitted = True
    return message


def _health(
    row: rows.Agent, instances: Sequence[Instance], connected: bool, monotonic: float, lease: float
) -> agents_pb2.HealthStatus.ValueType:
    if row.status == "initializing":
        return agents_pb2.HEALTH_STATUS_UNKNOWN
    if row.status == "error":
        return agents_pb2.HEALTH_STATUS_ERROR
    if not instances or row.status == "inactive":
        return agents_pb2.HEALTH_STATUS_OFFLINE
    # A status comes every third of the lease; one that is twice as late is missed.
    overdue = any(instance.expires_at - monotonic < lease / 3 for instance in instances)
    return agents_pb2.HEALTH_STATUS_HEALTHY if connected and not overdue else agents_pb2.HEALTH_STATUS_DEGRADED


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

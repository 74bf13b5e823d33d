"""What a request says of tasks, in the words of engine and store."""

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from agent_orchestration.v1 import common_pb2, tasks_pb2
from ao_server.api import messages
from ao_server.engine import retries
from ao_server.engine.intake import NewTask
from ao_server.errors import Invalid
from ao_server.store.filters import TaskFilter
from ao_server.store.id_times import first_at


def new_task(request: tasks_pb2.CreateTaskRequest, project_id: str, path: str = "") -> NewTask:
    """The task that is asked for. Invalid, naming the field behind `path`."""
    run_at, delay = _time(request.schedule, path) if request.HasField("schedule") else (None, None)
    # Asking whether there are any costs a tenth of copying none.
    labels = dict(request.labels) if request.labels else {}
    for key in labels:
        if "=" in key:
            raise Invalid.field(f"{path}labels.{key}", "a key must not contain =, which ends it in the filter of lists")
    return NewTask(
        project_id=project_id,
        agent_id=request.agent_id if request.HasField("agent_id") else None,
        type=request.type,
        priority=messages.PRIORITIES[request.priority or common_pb2.PRIORITY_MEDIUM],
        payload=request.payload if request.HasField("payload") else "{}",
        agent_type=request.agent_type if request.HasField("agent_type") else None,
        labels=labels,
        timeout=timeout(request.timeout) if request.HasField("timeout") else None,
        retry=retries.encode(retry_policy(request.retry)) if request.HasField("retry") else None,
        run_at=run_at,
        delay=delay,
        path=path,
    )


def new_tasks(request: tasks_pb2.CreateTasksRequest, project_id: str) -> list[NewTask]:
    """The tasks that are asked for together."""
    found: list[NewTask] = []
    for place, each in enumerate(request.tasks):
        if each.HasField("idempotency_key"):
            raise Invalid.field(f"tasks[{place}].idempotency_key", "give one key for the whole request")
        found.append(new_task(each, project_id, f"tasks[{place}]."))
    return found


def task_filter(request: tasks_pb2.ListTasksRequest) -> TaskFilter:
    """What the list is narrowed by. A task's creation time is the millisecond that its id begins with."""
    return TaskFilter(
        agent_id=request.agent_id if request.HasField("agent_id") else None,
        status=messages.enum_name(tasks_pb2.TaskStatus, request.status) if request.HasField("status") else None,
        priority=messages.PRIORITIES.get(request.priority) if request.HasField("priority") else None,
        type=request.type if request.HasField("type") else None,
        agent_type=request.agent_type if request.HasField("agent_type") else None,
        id_from=_first_id(request.created_after, later=1) if request.HasField("created_after") else None,
        id_before=_first_id(request.created_before) if request.HasField("created_before") else None,
        labels=[_label(each) for each in request.label],
        execution_id=request.execution_id if request.HasField("execution_id") else None,
    )


def retry_policy(policy: tasks_pb2.RetryPolicy) -> retries.Policy:
    """What is said of retries."""
    return retries.Policy(
        attempts=policy.attempts if policy.HasField("attempts") else None,
        backoff=_microseconds(policy.backoff) if policy.HasField("backoff") else None,
        max_backoff=_microseconds(policy.max_backoff) if policy.HasField("max_backoff") else None,
        jitter=policy.jitter if policy.HasField("jitter") else None,
    )


def timeout(duration: Duration) -> int:
    """In microseconds, and at least the smallest that the store can tell from none at all."""
    return max(1, _microseconds(duration))


def _time(schedule: tasks_pb2.Schedule, path: str) -> tuple[int | None, int | None]:
    """The time, or the delay, in microseconds."""
    has_time, has_delay = schedule.HasField("run_at"), schedule.HasField("delay")
    if schedule.type != tasks_pb2.SCHEDULE_TYPE_DELAYED:
        for name, given in (("run_at", has_time), ("delay", has_delay)):
            if given:
                raise Invalid.field(f"{path}schedule.{name}", "goes only with the type delayed")
        return None, None
    if has_time == has_delay:
        raise Invalid.field(f"{path}schedule.run_at", "one of run_at and delay is needed")
    if has_time:
        return schedule.run_at.ToMicroseconds(), None
    return None, _microseconds(schedule.delay)


def _label(text: str) -> tuple[str, str | None]:
    key, separator, value = text.partition("=")
    if not key:
        raise Invalid.field("label", "must be key or key=value")
    return key, value if separator else None


def _microseconds(duration: Duration) -> int:
    return duration.ToMicroseconds()


def _first_id(time: Timestamp, later: int = 0) -> str:
    return first_at("task", time.ToMicroseconds() + later)

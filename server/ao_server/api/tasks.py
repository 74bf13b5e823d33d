"""TaskService."""

from collections.abc import AsyncIterator
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from agent_orchestration.v1 import common_pb2, tasks_pb2, tasks_pb2_grpc
from ao_server.api import calls, messages
from ao_server.engine import intake
from ao_server.engine.feed import Feed
from ao_server.engine.ids import Ids, first_at
from ao_server.engine.states import FINAL
from ao_server.errors import NotFound
from ao_server.store import tasks
from ao_server.store.reader import Reader
from ao_server.store.writer import Writer

DEFAULT_LIMIT = 20


class TaskServicer(tasks_pb2_grpc.TaskServiceServicer):
    """Submits tasks and shows them."""

    def __init__(self, writer: Writer, reader: Reader, feed: Feed, ids: Ids) -> None:
        self._writer = writer
        self._reader = reader
        self._feed = feed
        self._ids = ids

    async def CreateTask(self, request: tasks_pb2.CreateTaskRequest, context: Any) -> tasks_pb2.CreateTaskResponse:
        """Submits a task."""
        call = calls.current()
        new = intake.NewTask(
            project_id=call.project_id,
            agent_id=request.agent_id,
            type=request.type,
            priority=messages.PRIORITIES[request.priority or common_pb2.PRIORITY_MEDIUM],
            payload=request.payload if request.HasField("payload") else "{}",
        )
        task = await self._writer.submit(intake.create_task(new, self._ids), call.timeout)
        return tasks_pb2.CreateTaskResponse(data=messages.created_task(task, new.payload))

    async def GetTask(self, request: tasks_pb2.GetTaskRequest, context: Any) -> tasks_pb2.GetTaskResponse:
        """Shows one task."""
        return tasks_pb2.GetTaskResponse(data=messages.task_detail(await self._detail(request.task_id)))

    async def ListTasks(self, request: tasks_pb2.ListTasksRequest, context: Any) -> tasks_pb2.ListTasksResponse:
        """Lists tasks."""
        page = request.page or 1
        limit = request.limit or DEFAULT_LIMIT
        found = await tasks.page(self._reader, calls.current().project_id, _filter(request), page=page, limit=limit)
        return tasks_pb2.ListTasksResponse(
            data=[messages.listed_task(listed) for listed in found.rows],
            pagination=messages.pagination(found, page, limit),
        )

    async def WatchTask(
        self, request: tasks_pb2.WatchTaskRequest, context: Any
    ) -> AsyncIterator[tasks_pb2.WatchTaskResponse]:
        """Streams the task after each of its changes."""
        project_id = calls.current().project_id
        position = self._feed.head(project_id)
        detail = await self._detail(request.task_id)
        yield tasks_pb2.WatchTaskResponse(data=messages.task_detail(detail))
        if detail.task.status in FINAL:
            return
        async for batch in self._feed.watch(project_id, position):
            if any(event.task_id == request.task_id for event in batch):
                detail = await self._detail(request.task_id)
                yield tasks_pb2.WatchTaskResponse(data=messages.task_detail(detail))
                if detail.task.status in FINAL:
                    return

    async def _detail(self, task_id: str) -> tasks.TaskDetail:
        detail = await tasks.detail(self._reader, calls.current().project_id, task_id)
        if detail is None:
            raise NotFound("there is no such task")
        return detail


def _filter(request: tasks_pb2.ListTasksRequest) -> tasks.TaskFilter:
    # A task's creation time is the millisecond that its id begins with.
    return tasks.TaskFilter(
        agent_id=request.agent_id if request.HasField("agent_id") else None,
        status=messages.enum_name(tasks_pb2.TaskStatus, request.status) if request.HasField("status") else None,
        priority=messages.PRIORITIES.get(request.priority) if request.HasField("priority") else None,
        id_from=_first_id(request.created_after, later=1) if request.HasField("created_after") else None,
        id_before=_first_id(request.created_before) if request.HasField("created_before") else None,
    )


def _first_id(time: Timestamp, later: int = 0) -> str:
    return first_at("task", time.ToMicroseconds() + later)

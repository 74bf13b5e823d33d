"""TaskService."""

from collections.abc import AsyncIterator
from typing import Any

from agent_orchestration.v1 import tasks_pb2, tasks_pb2_grpc
from ao_server.api import calls, idempotency, messages, pages, takers, task_requests, waiting
from ao_server.engine import cancellation, explanations, intake
from ao_server.engine.feed import Feed
from ao_server.engine.fleet import Fleet
from ao_server.engine.idempotency import once
from ao_server.engine.ids import Ids
from ao_server.engine.registry import Registry
from ao_server.engine.states import FINAL
from ao_server.engine.waits import Waits
from ao_server.errors import NotFound
from ao_server.store import lists, rows, tasks
from ao_server.store.totals import Totals
from ao_server.store.writer import Writer

MAX_POSITION = 1_000


class TaskServicer(tasks_pb2_grpc.TaskServiceServicer):
    """Submits tasks, shows and stops them."""

    def __init__(
        self, writer: Writer, totals: Totals, feed: Feed, waits: Waits, registry: Registry, fleet: Fleet, ids: Ids
    ) -> None:
        self._writer = writer
        self._totals = totals
        self._reader = totals.reader
        self._feed = feed
        self._waits = waits
        self._registry = registry
        self._fleet = fleet
        self._ids = ids

    async def CreateTask(self, request: tasks_pb2.CreateTaskRequest, context: Any) -> tasks_pb2.CreateTaskResponse:
        """Submits a task."""
        call = calls.current()
        new = task_requests.new_task(request, call.project_id)
        operation = once(intake.create_task(new, self._ids), idempotency.of(request), rows.Task)
        created = await self._writer.write(operation)
        data = messages.created_task(created.answer, new.payload)
        return tasks_pb2.CreateTaskResponse(data=data, idempotent_replayed=created.is_replayed)

    async def CreateTasks(self, request: tasks_pb2.CreateTasksRequest, context: Any) -> tasks_pb2.CreateTasksResponse:
        """Submits tasks, all or none."""
        call = calls.current()
        new = task_requests.new_tasks(request, call.project_id)
        operation = once(intake.create_tasks(new, self._ids), idempotency.of(request), list[rows.Task])
        created = await self._writer.write(operation)
        response = messages.created_tasks(created.answer)
        response.idempotent_replayed = created.is_replayed
        return response

    async def GetTask(self, request: tasks_pb2.GetTaskRequest, context: Any) -> tasks_pb2.GetTaskResponse:
        """Shows one task, at once or when it is final."""
        await waiting.until_final(self._waits, request.task_id, request.wait, lambda: self._is_final(request.task_id))
        return tasks_pb2.GetTaskResponse(data=messages.task_detail(await self._detail(request.task_id)))

    async def ListTasks(self, request: tasks_pb2.ListTasksRequest, context: Any) -> tasks_pb2.ListTasksResponse:
        """Lists tasks."""
        asked = pages.keyset(request, request.starting_after)
        found = await lists.page(
            self._totals,
            calls.current().project_id,
            task_requests.task_filter(request),
            page=asked.page,
            limit=asked.limit,
            starting_after=asked.starting_after,
        )
        data = [messages.listed_task(listed) for listed in found.rows]
        return tasks_pb2.ListTasksResponse(data=data, pagination=asked.pagination(found))

    async def ListTaskLogs(
        self, request: tasks_pb2.ListTaskLogsRequest, context: Any
    ) -> tasks_pb2.ListTaskLogsResponse:
        """Lists a task's log lines."""
        asked = pages.of(request)
        project_id = calls.current().project_id
        found = await tasks.logs(self._reader, project_id, request.task_id, page=asked.page, limit=asked.limit)
        if found is None:
            raise NotFound("there is no such task")
        data = [messages.log_line(line) for line in found.rows]
        return tasks_pb2.ListTaskLogsResponse(data=data, pagination=asked.pagination(found))

    async def ExplainTask(self, request: tasks_pb2.ExplainTaskRequest, context: Any) -> tasks_pb2.ExplainTaskResponse:
        """Says why a task is not running."""
        task = await self._existing(request.task_id)
        why = explanations.explain(task, await takers.of(task, self._reader, self._registry))
        response = tasks_pb2.ExplainTaskResponse()
        data = response.data
        data.task_id = task.id
        data.status = tasks_pb2.TaskStatus.Value(f"TASK_STATUS_{task.status.upper()}")
        data.reason.code = why.code
        data.reason.message = why.message
        data.remedies.extend(why.remedies)
        if why.waits_in_line:
            ahead = await tasks.ahead(self._reader, task, MAX_POSITION)
            if ahead < MAX_POSITION:
                data.position = ahead + 1
        return response

    async def CancelTask(self, request: tasks_pb2.CancelTaskRequest, context: Any) -> tasks_pb2.CancelTaskResponse:
        """Cancels a task."""
        call = calls.current()
        operation = cancellation.cancel(call.project_id, request.task_id, self._stop)
        await self._writer.write(operation)
        return tasks_pb2.CancelTaskResponse(data=messages.task_detail(await self._detail(request.task_id)))

    async def RetryTask(self, request: tasks_pb2.RetryTaskRequest, context: Any) -> tasks_pb2.RetryTaskResponse:
        """Makes a new task like a final one."""
        call = calls.current()
        task = await self._existing(request.task_id)
        operation = intake.retry_task(call.project_id, task.id, task.agent_id, self._ids)
        keyed = once(operation, idempotency.of(request), tuple[rows.Task, str])
        created = await self._writer.write(keyed)
        data = messages.created_task(*created.answer)
        return tasks_pb2.RetryTaskResponse(data=data, idempotent_replayed=created.is_replayed)

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

    async def _is_final(self, task_id: str) -> bool:
        return (await self._existing(task_id)).status in FINAL

    def _stop(self, task: rows.Task) -> None:
        if task.status == "running":
            self._fleet.stop_attempt(task, "requested")

    async def _existing(self, task_id: str) -> rows.Task:
        task = await tasks.get(self._reader, calls.current().project_id, task_id)
        if task is None:
            raise NotFound("there is no such task")
        return task

    async def _detail(self, task_id: str) -> tasks.TaskDetail:
        detail = await tasks.detail(self._reader, calls.current().project_id, task_id)
        if detail is None:
            raise NotFound("there is no such task")
        return detail

"""MonitoringService."""

import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import psutil

from agent_orchestration.v1 import events_pb2, monitoring_pb2, monitoring_pb2_grpc
from ao_server.api import calls, messages
from ao_server.engine.clock import Clock
from ao_server.engine.counters import MICROSECONDS_A_MINUTE
from ao_server.engine.feed import READ_AT_ONCE, Feed
from ao_server.errors import Forbidden, Unavailable
from ao_server.store import agents, counts, rows
from ao_server.store.reader import Reader
from ao_server.store.writer import Writer

MESSAGE_BYTES = 1024 * 1024
SYSTEM_EVENTS = frozenset({"agent_status_change", "task_completed", "system_alert"})


class MonitoringServicer(monitoring_pb2_grpc.MonitoringServiceServicer):
    """The state of the system, and what happens in it."""

    def __init__(self, writer: Writer, reader: Reader, feed: Feed, clock: Clock, data_dir: Path) -> None:
        self._writer = writer
        self._reader = reader
        self._feed = feed
        self._clock = clock
        self._data_dir = data_dir

    async def GetHealth(
        self, request: monitoring_pb2.GetHealthRequest, context: Any
    ) -> monitoring_pb2.GetHealthResponse:
        """Says how the parts of the system are."""
        response = monitoring_pb2.GetHealthResponse()
        response.timestamp.FromMicroseconds(self._clock.now())
        response.services.redis.status = monitoring_pb2.SYSTEM_STATUS_NOT_CONFIGURED
        self._add_machine(response.metrics)
        started = time.perf_counter()
        try:
            await self._add_figures(response)
            status = monitoring_pb2.SYSTEM_STATUS_HEALTHY
            if not self._writer.is_healthy:
                status = monitoring_pb2.SYSTEM_STATUS_DEGRADED
        except Unavailable:
            status = monitoring_pb2.SYSTEM_STATUS_UNHEALTHY
        response.services.database.response_time = round((time.perf_counter() - started) * 1000, 3)
        response.services.database.status = status
        response.services.message_queue.status = status
        response.status = status
        return response

    async def WatchEvents(
        self, request: monitoring_pb2.WatchEventsRequest, context: Any
    ) -> AsyncIterator[monitoring_pb2.WatchEventsResponse]:
        """Streams events."""
        project_id = calls.current().project_id
        if not self._feed.has(project_id):
            raise Forbidden("there is no such project")
        position = self._feed.head(project_id)
        if request.HasField("after"):
            position = await self._feed.position(project_id, request.after)
        yield monitoring_pb2.WatchEventsResponse(cursor=self._feed.cursor(project_id, position))
        async for batch in self._feed.watch(project_id, position):
            for response in self._responses(project_id, batch, request.filters):
                yield response

    async def _add_figures(self, response: monitoring_pb2.GetHealthResponse) -> None:
        project_id = calls.current().project_id
        minute = self._clock.now() // MICROSECONDS_A_MINUTE
        metrics = response.metrics
        async with self._reader.connect() as connection:
            pending = await counts.tasks(connection, project_id, status="pending")
            response.services.message_queue.pending_messages = pending
            metrics.running_tasks = await counts.tasks(connection, project_id, status="running")
            metrics.completed_tasks_today = await counts.completed_today(connection, project_id, minute)
            metrics.active_agents = await agents.count_active(connection, project_id)

    def _add_machine(self, metrics: monitoring_pb2.SystemMetrics) -> None:
        metrics.system_load = round(os.getloadavg()[0] / (os.cpu_count() or 1), 2)
        metrics.memory_usage = psutil.virtual_memory().percent
        metrics.disk_usage = round(self._reader.database.disk_usage(self._data_dir), 1)

    def _responses(
        self, project_id: str, batch: Sequence[rows.Event], filters: Sequence[events_pb2.EventFilter]
    ) -> list[monitoring_pb2.WatchEventsResponse]:
        """The batch as messages of bounded size; none when no event matches and the batch is short."""
        responses: list[monitoring_pb2.WatchEventsResponse] = []
        response = monitoring_pb2.WatchEventsResponse()
        size = 0
        for row in batch:
            channel = _channel(row, filters)
            if channel is None:
                continue
            cursor = self._feed.cursor(project_id, row.position)
            event = messages.event(row, cursor)
            event.channel = channel  # pyright: ignore[reportAttributeAccessIssue] - an enum's number
            if size and size + len(row.body) > MESSAGE_BYTES:
                responses.append(response)
                response = monitoring_pb2.WatchEventsResponse()
                size = 0
            size += len(row.body)
            response.events.append(event)
            response.cursor = cursor
        if response.events or len(batch) == READ_AT_ONCE:
            response.cursor = self._feed.cursor(project_id, batch[-1].position)
            responses.append(response)
        return responses


def _channel(row: rows.Event, filters: Sequence[events_pb2.EventFilter]) -> int | None:
    """The channel of the first filter that matches; unspecified without filters; None when none matches."""
    if not filters:
        return events_pb2.CHANNEL_UNSPECIFIED
    return next((each.channel for each in filters if _MATCHES[each.channel](row, each)), None)


def _agent_event(row: rows.Event, wanted: events_pb2.EventFilter) -> bool:
    return row.agent_id is not None and (not wanted.HasField("agent_id") or wanted.agent_id == row.agent_id)


def _system_event(row: rows.Event, wanted: events_pb2.EventFilter) -> bool:
    return row.type in SYSTEM_EVENTS


def _task_event(row: rows.Event, wanted: events_pb2.EventFilter) -> bool:
    return row.task_id is not None and (not wanted.HasField("task_id") or wanted.task_id == row.task_id)


_MATCHES: dict[int, Callable[[rows.Event, events_pb2.EventFilter], bool]] = {
    events_pb2.CHANNEL_AGENT_EVENTS: _agent_event,
    events_pb2.CHANNEL_SYSTEM_EVENTS: _system_event,
    events_pb2.CHANNEL_TASK_EVENTS: _task_event,
}

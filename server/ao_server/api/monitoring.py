"""MonitoringService."""

import os
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import psutil

from agent_orchestration.v1 import events_pb2, monitoring_pb2, monitoring_pb2_grpc
from ao_server.api import calls, event_filters, messages, metric_messages
from ao_server.api.metric_messages import METRICS, PERIODS
from ao_server.engine.clock import Clock
from ao_server.engine.counters import MICROSECONDS_A_MINUTE
from ao_server.engine.feed import READ_AT_ONCE, Feed
from ao_server.errors import Forbidden, Unavailable
from ao_server.store import agents, counts, rows
from ao_server.store.filters import TaskFilter
from ao_server.store.totals import Totals
from ao_server.store.writer import Writer

MESSAGE_BYTES = 256 * 1024


class MonitoringServicer(monitoring_pb2_grpc.MonitoringServiceServicer):
    """The state of the system, and what happens in it."""

    def __init__(self, writer: Writer, totals: Totals, feed: Feed, clock: Clock, data_dir: Path) -> None:
        self._writer = writer
        self._totals = totals
        self._reader = totals.reader
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

    async def GetMetrics(
        self, request: monitoring_pb2.GetMetricsRequest, context: Any
    ) -> monitoring_pb2.GetMetricsResponse:
        """Shows how the work went over time."""
        period = request.period or monitoring_pb2.PERIOD_24H
        minutes, part = PERIODS[period]
        since = self._clock.now() // MICROSECONDS_A_MINUTE - minutes + 1
        # A part belongs to the period as a whole: its point does not change while it leaves the period.
        history = await counts.history(self._reader, calls.current().project_id, since - since % part, part)
        wanted = [request.metric] if request.HasField("metric") else list(METRICS)
        return metric_messages.report(period, history, [METRICS[metric] for metric in wanted])

    async def WatchEvents(
        self, request: monitoring_pb2.WatchEventsRequest, context: Any
    ) -> AsyncIterator[monitoring_pb2.WatchEventsResponse]:
        """Streams events."""
        project_id = calls.current().project_id
        if not self._feed.has(project_id):
            raise Forbidden("there is no such project")
        filters = event_filters.of(request)
        position = self._feed.head(project_id)
        if request.HasField("after"):
            position = await self._feed.position(project_id, request.after)
        cursor = self._feed.cursor(project_id, position)
        yield monitoring_pb2.WatchEventsResponse(cursor=cursor)
        async for batch in self._feed.watch(project_id, position):
            for response in self._responses(project_id, batch, filters, cursor):
                cursor = response.cursor
                yield response

    async def _add_figures(self, response: monitoring_pb2.GetHealthResponse) -> None:
        project_id = calls.current().project_id
        minute = self._clock.now() // MICROSECONDS_A_MINUTE
        metrics = response.metrics
        pending = await self._totals.total(project_id, TaskFilter(status="pending"))
        response.services.message_queue.pending_messages = pending
        metrics.running_tasks = await self._totals.total(project_id, TaskFilter(status="running"))
        async with self._reader.connect() as connection:
            metrics.completed_tasks_today = await counts.completed_today(connection, project_id, minute)
            metrics.active_agents = await agents.count_active(connection, project_id)

    def _add_machine(self, metrics: monitoring_pb2.SystemMetrics) -> None:
        metrics.system_load = round(os.getloadavg()[0] / (os.cpu_count() or 1), 2)
        metrics.memory_usage = psutil.virtual_memory().percent
        metrics.disk_usage = round(self._reader.database.disk_usage(self._data_dir), 1)

    def _responses(
        self, project_id: str, batch: Sequence[rows.Event], filters: Sequence[events_pb2.EventFilter], cursor: str
    ) -> list[monitoring_pb2.WatchEventsResponse]:
        """The batch as messages of bounded size; none when no event matches and the batch is short. `cursor`: where the
        stream stands, and where a live event leaves it.
        """
        responses: list[monitoring_pb2.WatchEventsResponse] = []
        response = monitoring_pb2.WatchEventsResponse(cursor=cursor)
        size = 0
        for row in batch:
            channel = event_filters.channel(row, filters)
            if channel is None:
                continue
            event = messages.event(row, self._feed.cursor(project_id, row.position) if row.position else "")
            event.channel = channel  # pyright: ignore[reportAttributeAccessIssue] - an enum's number
            if size and size + len(row.body) > MESSAGE_BYTES:
                responses.append(response)
                response = monitoring_pb2.WatchEventsResponse(cursor=response.cursor)
                size = 0
            size += len(row.body)
            response.events.append(event)
            response.cursor = event.cursor or response.cursor
        if response.events or len(batch) == READ_AT_ONCE:
            last = batch[-1].position
            response.cursor = self._feed.cursor(project_id, last) if last else response.cursor
            responses.append(response)
        return responses

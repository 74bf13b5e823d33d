"""A small server that speaks the real protocol and does what a test tells it: for the gateway's own behaviour."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

from agent_orchestration.v1 import (
    access_pb2,
    access_pb2_grpc,
    agents_pb2,
    audit_pb2,
    audit_pb2_grpc,
    events_pb2,
    monitoring_pb2,
    monitoring_pb2_grpc,
    relay_pb2,
    relay_pb2_grpc,
)

GATEWAY_KEY = "ao_gw_test_key"
KEYS = {"ao_live_one": "project_1", "ao_live_again": "project_1", "ao_live_other": "project_2"}

Answer = Callable[[relay_pb2.RelayCall], Awaitable[bytes | status_pb2.Status]]


async def an_agent(call: relay_pb2.RelayCall) -> bytes | status_pb2.Status:
    """The answer to any call, good for those that print an agent or a list of agents."""
    response = agents_pb2.GetAgentResponse()
    response.data.id = "agent_1"
    return response.SerializeToString()


def refused(code: int, reason: str, message: str = "refused") -> status_pb2.Status:
    """A status as the server makes them."""
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.ErrorInfo(reason=reason, domain="agent-orchestration"))
    return status_pb2.Status(code=code, message=message, details=[detail])


class ScriptedServer(
    relay_pb2_grpc.RelayServiceServicer,
    access_pb2_grpc.AccessServiceServicer,
    monitoring_pb2_grpc.MonitoringServiceServicer,
    audit_pb2_grpc.AuditServiceServicer,
):
    """Answers relayed calls with `answer`, knows `keys`, and streams `events` in order. Its audit log never ends."""

    def __init__(self) -> None:
        self.keys = dict(KEYS)
        self.answer: Answer = an_agent
        self.calls: list[relay_pb2.RelayCall] = []
        # How many calls came in each message.
        self.messages: list[int] = []
        self.cancelled: list[int] = []
        self.authenticated: list[str] = []
        self.watches: list[str | None] = []
        self.watch_requests: list[monitoring_pb2.WatchEventsRequest] = []
        # Streams of events that are being served.
        self.open_watches = 0
        self.watches_changed = asyncio.Condition()
        # Cleared: streams of events begin, but not with an answer.
        self.answers_watches = asyncio.Event()
        self.answers_watches.set()
        self.cache_seconds = 60.0
        self.scopes = ["admin"]
        self._credential_watches: set[asyncio.Queue[str]] = set()
        self.feed_id = "f1"
        self.is_silent = False
        self.address = "127.0.0.1:0"
        self._events: list[events_pb2.Event] = []
        self._alerts: list[events_pb2.Event] = []
        self._changed = asyncio.Event()
        self._server: grpc.aio.Server | None = None

    async def start(self) -> None:
        """Serves, after the first start always on the same port."""
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        relay_pb2_grpc.add_RelayServiceServicer_to_server(self, server)
        access_pb2_grpc.add_AccessServiceServicer_to_server(self, server)
        monitoring_pb2_grpc.add_MonitoringServiceServicer_to_server(self, server)
        audit_pb2_grpc.add_AuditServiceServicer_to_server(self, server)
        port = server.add_insecure_port(self.address)
        self.address = f"127.0.0.1:{port}"
        await server.start()
        self._server = server

    async def stop(self) -> None:
        """Goes away at once."""
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    def revoke(self, key: str) -> None:
        """The key is not known any more; gateways that watch are told."""
        del self.keys[key]
        for changed in self._credential_watches:
            changed.put_nowait(f"key_of_{key}")

    def cursor(self, position: int) -> str:
        """The cursor behind that many events."""
        return f"{self.feed_id}{position:012x}"

    def publish(self, *, task_id: str = "task_1", agent_id: str = "agent_1", size: int = 0) -> str:
        """Adds the event of a task; its cursor."""
        event = events_pb2.Event(type=events_pb2.EVENT_TYPE_TASK_PROGRESS)
        event.agent_id, event.task_id = agent_id, task_id
        event.task.id = task_id
        event.task.progress_message = "x" * size
        return self.add(event)

    def add(self, event: events_pb2.Event) -> str:
        """Adds any event; its cursor."""
        event.cursor = self.cursor(len(self._events) + 1)
        self._events.append(event)
        self._wake()
        return event.cursor

    def alert(self, code: str = "store_unavailable") -> None:
        """Sends an alert to all who watch now, without a cursor."""
        event = events_pb2.Event(type=events_pb2.EVENT_TYPE_SYSTEM_ALERT)
        event.system_alert.code = code
        self._alerts.append(event)
        self._wake()

    async def until_watched(self, count: int) -> None:
        """Waits until exactly so many streams of events are open."""
        async with self.watches_changed:
            await self.watches_changed.wait_for(lambda: self.open_watches == count)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def Relay(
        self, request_iterator: Any, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[relay_pb2.RelayResponse]:
        await self._admit(context)
        replies: asyncio.Queue[relay_pb2.RelayReply | None] = asyncio.Queue()
        tasks: set[asyncio.Task[None]] = set()

        async def run(call: relay_pb2.RelayCall) -> None:
            if self.is_silent:
                return
            if not call.metadata:
                outcome: bytes | status_pb2.Status = refused(code_pb2.UNAUTHENTICATED, "unauthorized")
            else:
                self.calls.append(call)
                outcome = await self.answer(call)
            reply = relay_pb2.RelayReply(id=call.id)
            if isinstance(outcome, bytes):
                reply.message = outcome
            else:
                reply.status = outcome.SerializeToString()
            replies.put_nowait(reply)

        async def read() -> None:
            async for request in request_iterator:
                self.messages.append(len(request.calls))
                self.cancelled += request.cancelled
                tasks.update(asyncio.create_task(run(call)) for call in request.calls)
            replies.put_nowait(None)

        reader = asyncio.create_task(read())
        try:
            while (reply := await replies.get()) is not None:
                yield relay_pb2.RelayResponse(replies=[reply])
        finally:
            for task in (reader, *tasks):
                task.cancel()

    async def Authenticate(
        self, request: access_pb2.AuthenticateRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> access_pb2.AuthenticateResponse:
        await self._admit(context)
        self.authenticated.append(request.credential)
        project_id = self.keys.get(request.credential)
        if project_id is None:
            await self._abort(context, refused(code_pb2.UNAUTHENTICATED, "unauthorized"))
        response = access_pb2.AuthenticateResponse()
        response.principal.project_id = project_id or ""
        response.principal.credential_id = f"key_of_{request.credential}"
        response.principal.scopes.extend(self.scopes)
        response.cache_for.FromMicroseconds(round(self.cache_seconds * 1e6))
        return response

    async def WatchCredentials(
        self, request: access_pb2.WatchCredentialsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[access_pb2.WatchCredentialsResponse]:
        await self._admit(context)
        changed: asyncio.Queue[str] = asyncio.Queue()
        self._credential_watches.add(changed)
        try:
            yield access_pb2.WatchCredentialsResponse()
            while True:
                yield access_pb2.WatchCredentialsResponse(credential_ids=[await changed.get()])
        finally:
            self._credential_watches.discard(changed)

    async def IssueToken(
        self, request: access_pb2.IssueTokenRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> access_pb2.IssueTokenResponse:
        """Never answers: which client may have a token is for the real server to say."""
        await self._admit(context)
        await asyncio.Event().wait()
        raise AssertionError

    async def RevokeToken(
        self, request: access_pb2.RevokeTokenRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> access_pb2.RevokeTokenResponse:
        raise NotImplementedError("the real server does")

    async def GetHealth(
        self, request: monitoring_pb2.GetHealthRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> monitoring_pb2.GetHealthResponse:
        raise NotImplementedError("gateways call it through the relay")

    async def GetMetrics(
        self, request: monitoring_pb2.GetMetricsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> monitoring_pb2.GetMetricsResponse:
        raise NotImplementedError("gateways call it through the relay")

    async def WatchEvents(
        self, request: monitoring_pb2.WatchEventsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[monitoring_pb2.WatchEventsResponse]:
        if _bearer(context) not in self.keys:
            await self._admit(context)
        self.watches.append(request.after if request.HasField("after") else None)
        self.watch_requests.append(request)
        await self._count_watch(1)
        try:
            await self.answers_watches.wait()
            async for response in self._watch(request, context):
                yield response
        finally:
            await self._count_watch(-1)

    async def _watch(
        self, request: monitoring_pb2.WatchEventsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[monitoring_pb2.WatchEventsResponse]:
        position = len(self._events)
        alerted = len(self._alerts)
        if request.HasField("after"):
            if not request.after.startswith(self.feed_id) or len(request.after) != len(self.cursor(0)):
                await self._abort(context, refused(code_pb2.OUT_OF_RANGE, "cursor_invalid"))
            position = int(request.after.removeprefix(self.feed_id), 16)
            if position > len(self._events):
                await self._abort(context, refused(code_pb2.OUT_OF_RANGE, "cursor_ahead"))
        yield monitoring_pb2.WatchEventsResponse(cursor=self.cursor(position))
        while True:
            changed = self._changed
            batch = self._events[position : position + 50]
            alerts = self._alerts[alerted:]
            if batch or alerts:
                position += len(batch)
                alerted += len(alerts)
                response = monitoring_pb2.WatchEventsResponse(events=[*alerts, *batch], cursor=self.cursor(position))
                for event in response.events:
                    event.channel = request.channel
                yield response
            else:
                await changed.wait()

    async def ListAuditRecords(
        self, request: audit_pb2.ListAuditRecordsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> audit_pb2.ListAuditRecordsResponse:
        raise NotImplementedError("gateways call it through the relay")

    async def ExportAuditRecords(
        self, request: audit_pb2.ExportAuditRecordsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[audit_pb2.ExportAuditRecordsResponse]:
        yield audit_pb2.ExportAuditRecordsResponse(data=[audit_pb2.AuditRecord(id="audit_1")])
        await asyncio.Event().wait()

    async def _count_watch(self, change: int) -> None:
        async with self.watches_changed:
            self.open_watches += change
            self.watches_changed.notify_all()

    async def _admit(self, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        if _bearer(context) != GATEWAY_KEY:
            await self._abort(context, refused(code_pb2.UNAUTHENTICATED, "unauthorized"))

    async def _abort(self, context: grpc.aio.ServicerContext[Any, Any], status: status_pb2.Status) -> None:
        code = next(each for each in grpc.StatusCode if each.value[0] == status.code)
        await context.abort(code, status.message, (("grpc-status-details-bin", status.SerializeToString()),))


def _bearer(context: grpc.aio.ServicerContext[Any, Any]) -> str:
    authorization = dict(context.invocation_metadata() or ()).get("authorization", "")
    assert isinstance(authorization, str)
    return authorization.removeprefix("Bearer ")

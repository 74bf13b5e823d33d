"""The WebSocket protocol: authenticate, subscribe, hear events. Frames are handled strictly in order."""

import asyncio
from typing import Any, Final

import structlog
from starlette.types import Receive, Scope, Send

from agent_orchestration.rate_limits import RateLimits
from agent_orchestration.scopes import holds, lacking
from agent_orchestration.v1 import monitoring_pb2, options_pb2
from ao_gateway import access, messages, rates, request_ids
from ao_gateway.access import Access, Principal
from ao_gateway.channels import Filter
from ao_gateway.errors import Refusal, forbidden, malformed, rate_limited, unauthorized
from ao_gateway.feed import Feed, Feeds
from ao_gateway.frame_rate import FRAMES_A_SECOND, FrameRate
from ao_gateway.frames import Sink
from ao_gateway.messages import Auth, Ping, Subscribe, Unsubscribe
from ao_gateway.rest import Answer, Request
from ao_gateway.watcher import RESTART, SocketWatcher, Subscription

log: Any = structlog.get_logger("ao_gateway.sockets")

SOCKET_PATH: Final = "/v1/ws"
# What a credential must hold to hear events, over whichever way.
SCOPE: Final[str] = (
    monitoring_pb2.DESCRIPTOR.services_by_name["MonitoringService"]
    .methods_by_name["WatchEvents"]
    .GetOptions()
    .Extensions[options_pb2.scope]
)
SINK: Final = "agent_orchestration.sink"
MAX_SUBSCRIPTIONS: Final = 100
AUTH_SECONDS: Final = 10.0
BAD_CREDENTIAL: Final = 4401
NO_CREDENTIAL: Final = 4408
TOO_MANY_FRAMES: Final = 4429
_TOO_MANY_FRAMES_ERROR: Final = messages.error(
    rate_limited(f"The limit of {FRAMES_A_SECOND} frames per second is used up", retry_after=1)
)


class Sockets:
    """The ASGI application of the WebSocket path, and all its open sockets."""

    def __init__(self, access: Access, limits: RateLimits, feeds: Feeds) -> None:
        self._access = access
        self._limits = limits
        self._feeds = feeds
        self._open: set[_Socket] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one socket to its end."""
        await receive()
        request_id = request_ids.of(scope["headers"])
        await send({"type": "websocket.accept", "headers": [(request_ids.HEADER, request_id.encode())]})
        socket = _Socket(scope["extensions"][SINK], self._access, self._limits, self._feeds)
        self._open.add(socket)
        try:
            await socket.serve(scope, receive)
        except Exception:
            log.exception("socket_failed", request_id=request_id)
            socket.end(1011, "internal_error")
        finally:
            self._open.discard(socket)
            socket.leave()

    @property
    def credentials(self) -> set[str]:
        """The credentials under which sockets are open."""
        return {socket.credential for socket in self._open if socket.credential}

    def end_credential(self, credential: str) -> None:
        """Closes the sockets under the credential."""
        for socket in list(self._open):
            if socket.credential == credential:
                socket.end(BAD_CREDENTIAL, "unauthorized")

    def restart(self) -> None:
        """Tells all sockets to come back: the gateway stops."""
        for socket in list(self._open):
            socket.end(RESTART, "restart")


async def ask_for_upgrade(request: Request) -> Answer:
    """What plain HTTP gets at the path of the WebSocket: always a Refusal."""
    raise malformed("This path is a WebSocket: the request must be an upgrade")


class _Socket:
    """One connection."""

    def __init__(self, sink: Sink, access: Access, limits: RateLimits, feeds: Feeds) -> None:
        self._sink = sink
        self._access = access
        self._limits = limits
        self._feeds = feeds
        self._frame_rate = FrameRate()
        self._principal: Principal | None = None
        self._feed: Feed | None = None
        self._watcher = SocketWatcher(sink)
        self.credential = ""

    async def serve(self, scope: Scope, receive: Receive) -> None:
        """Handles frames until the socket ends."""
        try:
            async with asyncio.timeout(AUTH_SECONDS):
                await self._greet(scope)
                while self._principal is None and not self._sink.is_closed:
                    await self._next(receive)
        except TimeoutError:
            self.end(NO_CREDENTIAL, "no credential in time")
        while not self._sink.is_closed:
            await self._next(receive)

    def end(self, code: int, reason: str) -> None:
        """Closes the socket."""
        self._sink.end(code, reason)

    def leave(self) -> None:
        """Stops hearing of events."""
        if self._feed is not None and self._principal is not None:
            self._feeds.leave(self._principal.project_id, self._watcher)

    async def _greet(self, scope: Scope) -> None:
        """Takes the credential of the handshake, if there is one."""
        try:
            credential = access.bearer(scope["headers"])
            if credential is not None:
                await self._authenticate(credential)
        except Refusal as refusal:
            self._refuse_credential(refusal)

    async def _next(self, receive: Receive) -> None:
        """Handles one frame; a client that sends more than it reads waits here."""
        message = await receive()
        if message["type"] == "websocket.disconnect":
            self._sink.end(1000, "")
            return
        await self._sink.drained()
        if not self._frame_rate.take():
            self._refuse_frame()
            return
        text = message.get("text")
        try:
            if text is None:
                raise malformed("A frame must be text, not binary")
            await self._handle(messages.read(text))
        except Refusal as refusal:
            self._answer(messages.error(refusal))

    async def _handle(self, message: messages.Message) -> None:
        match message:
            case Auth():
                try:
                    await self._authenticate(access.checked(message.token))
                except Refusal as refusal:
                    self._refuse_credential(refusal)
            case Ping():
                self._answer(messages.pong())
            case Subscribe():
                await self._subscribe(message)
            case Unsubscribe():
                self._unsubscribe(messages.filter_of(message))

    async def _authenticate(self, credential: str) -> None:
        """Takes a credential, or a fresh one in place of the last. It must be of the same project."""
        principal = await self._access.authenticate(credential)
        if self._principal is not None and principal.project_id != self._principal.project_id:
            raise forbidden("The credential is of another project")
        if self._feed is not None and not holds(principal.scopes, SCOPE):
            # What was begun under the last credential must not outlive it under one that could not have begun it.
            raise forbidden(lacking(SCOPE))
        decision = await rates.counted(self._limits, principal)
        if decision.is_refused:
            raise rate_limited(decision.message, decision.retry_after)
        self._principal = principal
        self.credential = credential
        self._answer(messages.authenticated())

    async def _subscribe(self, message: Subscribe) -> None:
        feed = await self._joined_feed()
        chosen = messages.filter_of(message)
        existing = self._watcher.find(chosen)
        now = self._watcher.front(feed.position)
        if existing is not None and message.after is None:
            self._answer(messages.subscribed(chosen, now))
        elif existing is None and len(self._watcher.subscriptions) >= MAX_SUBSCRIPTIONS:
            raise malformed(f"There can be at most {MAX_SUBSCRIPTIONS} subscriptions")
        elif message.after is None or message.after == now:
            self._begin(chosen, now, feed.position, existing)
        else:
            await self._catch_up(feed, chosen, message.after, existing)

    def _begin(self, chosen: Filter, cursor: str, position: str, existing: Subscription | None) -> None:
        """Subscribes from now on, where the shared feed stands at the position."""
        self._answer(messages.subscribed(chosen, cursor))
        if existing is None:
            subscription = Subscription(chosen, since=cursor, replayed=cursor)
            self._watcher.subscriptions.append(subscription)
            self._watcher.go_live(subscription, cursor, position)

    async def _catch_up(self, feed: Feed, chosen: Filter, after: str, existing: Subscription | None) -> None:
        """Sends what lies behind the cursor, then joins the shared feed exactly there."""
        subscription = Subscription(chosen, since=after, replayed=after)
        is_known = False
        batches = feed.behind(after, self._sink)
        try:
            async for batch in batches:
                if not is_known:
                    is_known = True
                    self._answer(messages.subscribed(chosen, batch.cursor))
                    self._watcher.subscriptions.append(subscription)
                await self._watcher.replay(batch, subscription)
                if batch.cursor >= self._watcher.front(feed.position) or self._sink.is_closed:
                    break
        except Refusal:
            if is_known:
                self._watcher.subscriptions.remove(subscription)
            raise
        finally:
            await batches.aclose()
        if existing is not None:
            self._merge(existing, subscription)
        else:
            self._watcher.go_live(subscription, subscription.replayed, feed.position)

    def _merge(self, existing: Subscription, replayed: Subscription) -> None:
        """One filter is one subscription, with the earlier beginning."""
        self._watcher.subscriptions.remove(replayed)
        existing.since = min(existing.since, replayed.since)

    def _unsubscribe(self, chosen: Filter) -> None:
        if self._principal is None:
            raise unauthorized("The first message must be auth")
        existing = self._watcher.find(chosen)
        if existing is not None:
            self._watcher.subscriptions.remove(existing)
        self._answer(messages.unsubscribed(chosen))

    async def _joined_feed(self) -> Feed:
        if self._principal is None:
            raise unauthorized("The first message must be auth")
        if not holds(self._principal.scopes, SCOPE):
            raise forbidden(lacking(SCOPE))
        if self._feed is None:
            self._feed = self._feeds.join(self._principal.project_id, self._watcher)
        await self._feed.ready()
        return self._feed

    def _refuse_frame(self) -> None:
        if self._frame_rate.is_flooded:
            self.end(TOO_MANY_FRAMES, "rate_limited")
        else:
            self._answer(_TOO_MANY_FRAMES_ERROR)

    def _refuse_credential(self, refusal: Refusal) -> None:
        if refusal.status == 401:
            self.end(BAD_CREDENTIAL, refusal.code)
            return
        self._answer(messages.error(refusal))
        if refusal.status == 503 and self._principal is None:
            # Nothing sent before the server is back could be answered: the client had better come again.
            self.end(RESTART, refusal.code)

    def _answer(self, frame: bytes) -> None:
        self._sink.write(frame, 1)

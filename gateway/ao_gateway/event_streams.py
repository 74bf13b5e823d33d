"""RPCs that stream events and have a route: Server-Sent Events.

Each stream is a call of its own under the user's credential, outside the relay.
"""

import asyncio
from functools import partial
from typing import Final

from agent_orchestration.v1 import monitoring_pb2
from ao_gateway.bindings import BadBinding, Binding
from ao_gateway.decode import RequestDecoder
from ao_gateway.errors import STOPPING, Headers, Refusal, Violation, invalid, unauthorized, unavailable
from ao_gateway.event_stream import EventStream, Held
from ao_gateway.rest import Request, Serve
from ao_gateway.upstream import NoCredential, Upstream

MAX_STREAMS: Final = 1_000

_LAST_EVENT_ID: Final = b"last-event-id"


class EventStreams:
    """Serves streams of events, and knows all that are open. `connected` is set while the server answers."""

    def __init__(self, upstream: Upstream, connected: asyncio.Event) -> None:
        self._upstream = upstream
        self._connected = connected
        self._open: set[EventStream] = set()
        self._held = Held()
        self._is_stopping = False

    def endpoint(self, binding: Binding) -> Serve:
        """What serves the binding. BadBinding when it does not stream events."""
        if binding.response != monitoring_pb2.WatchEventsResponse.DESCRIPTOR:
            raise BadBinding(f"{binding.rpc}: only a stream of events can be served over HTTP")
        return partial(self._serve, binding.rpc, RequestDecoder(binding))

    @property
    def credentials(self) -> set[str]:
        """The credentials under which streams are open."""
        return {stream.credential for stream in self._open}

    def end_credential(self, credential: str) -> None:
        """Ends the streams under the credential."""
        for stream in self._open:
            if stream.credential == credential:
                stream.end(unauthorized("The credential is not valid any more"))

    def server_lost(self) -> None:
        """Ends all streams: what they wait for may be dead without saying so."""
        for stream in self._open:
            stream.end(unavailable("The server cannot be reached"))

    def stop(self) -> None:
        """Ends all streams: the gateway stops."""
        self._is_stopping = True
        for stream in self._open:
            stream.end(unavailable(STOPPING))

    async def _serve(self, rpc: str, decoder: RequestDecoder, request: Request) -> None:
        message = decoder.decode(request.values, request.scope["query_string"], request.headers, b"")
        assert isinstance(message, monitoring_pb2.WatchEventsRequest)
        resumed = _last_event_id(request.headers)
        if resumed:
            message.after = resumed
        if self._is_stopping:
            raise unavailable(STOPPING)
        if not self._connected.is_set():
            raise unavailable("The server cannot be reached")
        if len(self._open) >= MAX_STREAMS:
            raise unavailable("Too many streams are open")
        try:
            metadata = self._upstream.on_behalf_of(request.credential, request.id)
        except NoCredential:
            raise unavailable("The server cannot be reached") from None
        call = self._upstream.open_stream(rpc, message, monitoring_pb2.WatchEventsResponse, metadata)
        stream = EventStream(request, call, self._held)
        self._open.add(stream)
        try:
            await stream.serve()
        finally:
            self._open.discard(stream)
            call.cancel()


def _last_event_id(headers: Headers) -> str | None:
    """Where a client that reconnects left off; browsers send the header by themselves."""
    values = [value.strip(b" \t") for name, value in headers if name == _LAST_EVENT_ID]
    if len(values) > 1:
        raise invalid([Violation("Last-Event-ID", "must be given once")])
    if not values or not values[0]:
        return None
    text = values[0].decode("latin-1")
    if not text.isascii() or not text.isprintable():
        raise Refusal(400, "cursor_invalid", "The Last-Event-ID is not a cursor of this feed")
    return text

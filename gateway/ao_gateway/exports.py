"""RPCs that stream data which ends, and have a route: lines of JSON, one object each.

An export is a call of its own under the user's credential, outside the relay, and is read only as fast as its client
takes it. One that cannot be finished is cut off without the end of its transfer encoding, which clients notice.
"""

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import grpc
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from ao_gateway import bindings
from ao_gateway.bindings import BadBinding, Binding
from ao_gateway.decode import RequestDecoder
from ao_gateway.disconnect import ClientGone, unless_gone
from ao_gateway.encode import encode, message_view
from ao_gateway.errors import STOPPING, from_rpc_error, unavailable
from ao_gateway.event_stream import OUTLET, Outlet
from ao_gateway.rest import Request, Serve
from ao_gateway.upstream import NoCredential, Upstream

MAX_EXPORTS: Final = 20
FIRST_ANSWER_SECONDS: Final = 30.0
# A client that takes nothing for this long is cut off.
STALLED_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class _Route:
    rpc: str
    decoder: RequestDecoder
    response: type[Message]
    line: Descriptor


class Exports:
    """Serves exports, and knows all that are under way. `connected` is set while the server answers."""

    def __init__(self, upstream: Upstream, connected: asyncio.Event) -> None:
        self._upstream = upstream
        self._connected = connected
        self._calls: set[Any] = set()
        self._is_stopping = False

    def endpoint(self, binding: Binding) -> Serve:
        """What serves the binding. BadBinding when its answers are no lists of data."""
        if binding.line is None:
            raise BadBinding(f"{binding.rpc}: no list of data to export")
        response = bindings.message_class(binding.response)
        return partial(self._serve, _Route(binding.rpc, RequestDecoder(binding), response, binding.line))

    def stop(self) -> None:
        """Cuts all exports off: the gateway stops."""
        self._is_stopping = True
        for call in self._calls:
            call.cancel()

    async def _serve(self, route: _Route, request: Request) -> None:
        message = route.decoder.decode(request.values, request.scope["query_string"], request.headers, b"")
        if self._is_stopping:
            raise unavailable(STOPPING)
        if not self._connected.is_set():
            raise unavailable("The server cannot be reached")
        if len(self._calls) >= MAX_EXPORTS:
            raise unavailable("Too many exports are under way")
        try:
            metadata = self._upstream.on_behalf_of(request.credential, request.id)
        except NoCredential:
            raise unavailable("The server cannot be reached") from None
        call = self._upstream.open_stream(route.rpc, message, route.response, metadata)
        self._calls.add(call)
        try:
            await self._send_all(route, request, call)
        finally:
            self._calls.discard(call)
            call.cancel()

    async def _send_all(self, route: _Route, request: Request, call: Any) -> None:
        try:
            async with asyncio.timeout(FIRST_ANSWER_SECONDS):
                response = await unless_gone(request.receive, call.read())
        except TimeoutError:
            raise unavailable("The server did not answer in time") from None
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from None
        except asyncio.CancelledError:
            if not self._is_stopping:
                raise
            raise unavailable(STOPPING) from None
        request.is_answered = True
        outlet: Outlet = request.scope["extensions"][OUTLET]
        if not request.is_head:
            outlet.begin_stream()
        await request.send(
            {"type": "http.response.start", "status": 200, "headers": request.answer_headers(b"application/x-ndjson")}
        )
        view = message_view(route.line, listed=True)
        try:
            while response is not grpc.aio.EOF and not request.is_head:
                lines = b"".join([encode(view(each)) + b"\n" for each in response.data])
                async with asyncio.timeout(STALLED_SECONDS):
                    await request.send({"type": "http.response.body", "body": lines, "more_body": True})
                response = await unless_gone(request.receive, call.read())
        except (grpc.aio.AioRpcError, TimeoutError, asyncio.CancelledError):
            outlet.abort()
            raise ClientGone from None
        await request.send({"type": "http.response.body", "body": b""})

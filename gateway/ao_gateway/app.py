"""The application: the only place where the parts are put together."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from importlib import import_module
from pkgutil import iter_modules
from typing import Final

from google.protobuf.descriptor import FileDescriptor
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.types import Receive, Scope, Send

from agent_orchestration import v1
from ao_gateway import bindings, errors, request_ids
from ao_gateway.access import Access
from ao_gateway.feed import Feeds
from ao_gateway.relay import Relay
from ao_gateway.sockets import SOCKET_PATH, Sockets
from ao_gateway.supervision import supervised
from ao_gateway.unary import Unary, send_answer
from ao_gateway.upstream import Upstream

# The whole contract: every service in it is served as far as its RPCs have routes.
FILES: Final[tuple[FileDescriptor, ...]] = tuple(
    import_module(f"{v1.__name__}.{module.name}").DESCRIPTOR
    for module in iter_modules(v1.__path__)
    if module.name.endswith("_pb2")
)


class Gateway:
    """A gateway in front of one server. `application` is its ASGI side."""

    def __init__(self, server: str, read_key: Callable[[], str]) -> None:
        self._upstream = Upstream(server, read_key)
        self.relay = Relay(self._upstream)
        self._feeds = Feeds(self._upstream)
        access = Access(self._upstream, self.relay.connected)
        self.sockets = Sockets(access, self._feeds)
        self._unary = Unary(bindings.read(FILES), access, self.relay)
        self.relay.on_lost(self._feeds.reconnect)
        self.application = Starlette(routes=[WebSocketRoute(SOCKET_PATH, self.sockets)], lifespan=self._lifespan)
        # Starlette's own answers are neither in our shape nor free of redirects.
        self.application.router.redirect_slashes = False
        self.application.router.default = self._other

    @asynccontextmanager
    async def _lifespan(self, application: Starlette) -> AsyncGenerator[None]:
        tasks = [supervised("relay", self.relay.run), supervised("sockets", self.sockets.run)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._feeds.close()
            self._unary.close()
            await self._upstream.close()

    async def _other(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Whatever is not the socket's handshake, which the protocol has checked."""
        if scope["path"] == SOCKET_PATH:
            await _ask_for_upgrade(scope, send)
        else:
            await self._unary(scope, receive, send)


async def _ask_for_upgrade(scope: Scope, send: Send) -> None:
    """What plain HTTP gets at the path of the WebSocket."""
    refusal = errors.malformed("This path is a WebSocket: the request must be an upgrade")
    if scope["method"] not in ("GET", "HEAD"):
        refusal = errors.method_not_allowed(["GET"])
    request_id = request_ids.of(scope["headers"])
    await send_answer(send, refusal.status, errors.printed(refusal, request_id), request_id, refusal.headers)

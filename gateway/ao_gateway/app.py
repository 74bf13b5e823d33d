"""The application: the only place where the parts are put together."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from importlib import import_module
from pkgutil import iter_modules
from typing import Final

from google.protobuf.descriptor import FileDescriptor
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.types import Receive, Scope, Send

from agent_orchestration import v1
from agent_orchestration.rate_limits import RateLimits
from agent_orchestration.tls import Connecting
from ao_gateway import bindings, probes
from ao_gateway.access import Access
from ao_gateway.addresses import TRUSTED_PROXIES, Network, TrustedProxies
from ao_gateway.bindings import Binding
from ao_gateway.cors import CORS, Cors
from ao_gateway.credentials import recheck
from ao_gateway.event_streams import EventStreams
from ao_gateway.exports import Exports
from ao_gateway.feed import Feeds
from ao_gateway.oauth import REVOCATION_PATH, TOKEN_PATH, OAuth
from ao_gateway.oauth_metadata import METADATA_PATH, OAuthMetadata
from ao_gateway.reference import DOCUMENT_PATH, PAGE_PATH, Reference
from ao_gateway.refusals import Refusals
from ao_gateway.relay import Relay
from ao_gateway.rest import Rest
from ao_gateway.sockets import SOCKET_PATH, Sockets, ask_for_upgrade
from ao_gateway.supervision import supervised
from ao_gateway.throttle import Throttle
from ao_gateway.unary import Unary
from ao_gateway.upstream import Upstream

# The whole contract: every service in it is served as far as its RPCs have routes.
FILES: Final[tuple[FileDescriptor, ...]] = tuple(
    import_module(f"{v1.__name__}.{module.name}").DESCRIPTOR
    for module in iter_modules(v1.__path__)
    if module.name.endswith("_pb2")
)


class Gateway:
    """A gateway in front of one server."""

    def __init__(
        self,
        server: str,
        read_key: Callable[[], str],
        limits: RateLimits,
        *,
        origins: Sequence[str] = (),
        trusted_proxies: Sequence[Network] = (),
        public_url: str | None = None,
        server_tls: Connecting | None = None,
    ) -> None:
        """`public_url`: where clients reach it, if that differs from what they see."""
        self._limits = limits
        self._cors = Cors(origins)
        self._trusted_proxies = TrustedProxies(trusted_proxies)
        self._upstream = Upstream(server, read_key, server_tls)
        self.relay = Relay(self._upstream)
        self._access = Access(self._upstream, self.relay.connected)
        self._feeds = Feeds(self._upstream, self._access.is_current)
        self._sockets = Sockets(self._access, self._limits, self._feeds)
        self._refusals = Refusals(self.relay)
        self._unary = Unary(self.relay, self._refusals)
        self._exports = Exports(self._upstream, self.relay.connected)
        self._streams = EventStreams(self._upstream, self.relay.connected)
        self.relay.on_lost(self._access.server_lost)
        self.relay.on_lost(self._feeds.reconnect)
        self.relay.on_lost(self._streams.server_lost)
        self._oauth = OAuth(self._upstream, self.relay.connected, Throttle())
        self._oauth_metadata = OAuthMetadata(public_url)
        self._rest = self._routes()
        self._starlette = Starlette(routes=[WebSocketRoute(SOCKET_PATH, self._sockets)], lifespan=self._lifespan)

    async def application(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application. Plain HTTP goes past Starlette, whose own answers would not be in our shape."""
        if scope["type"] == "http":
            await self._rest(scope, receive, send)
        else:
            await self._starlette(scope, receive, send)

    def stop(self) -> None:
        """Begins the graceful stop: ends all that would outlast it. Other requests are still answered."""
        self._sockets.restart()
        self._streams.stop()
        self._exports.stop()
        self.relay.end_waiting()

    def _routes(self) -> Rest:
        rest = Rest(self._access, self._limits, self._cors)
        routes = bindings.read(FILES)
        for binding in routes:
            serve = self._served_by(binding).endpoint(binding)
            refused = self._refusals.of(binding)
            rest.add(binding.http_method, binding.path, serve, scope=binding.scope, refused=refused)
        rest.add("GET", SOCKET_PATH, ask_for_upgrade)
        rest.add("GET", "/livez", probes.livez)
        rest.add("GET", "/readyz", probes.readyz(self.relay.connected))
        rest.add("POST", TOKEN_PATH, self._oauth.token)
        rest.add("POST", REVOCATION_PATH, self._oauth.revoke)
        rest.add("GET", METADATA_PATH, self._oauth_metadata.serve)
        reference = Reference(routes)
        rest.add("GET", DOCUMENT_PATH, reference.document)
        rest.add("GET", PAGE_PATH, reference.page)
        return rest

    def _served_by(self, binding: Binding) -> Unary | EventStreams | Exports:
        if not binding.is_stream:
            return self._unary
        return self._exports if binding.line is not None else self._streams

    @asynccontextmanager
    async def _lifespan(self, application: Starlette) -> AsyncGenerator[dict[str, object]]:
        tasks = [
            supervised("relay", self.relay.run),
            supervised("access", self._access.run),
            supervised("recheck", lambda: recheck(self._access, (self._sockets, self._streams))),
        ]
        try:
            yield {CORS: self._cors, TRUSTED_PROXIES: self._trusted_proxies}
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._feeds.close()
            self._unary.close()
            await self._limits.close()
            await self._upstream.close()

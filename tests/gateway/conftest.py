import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx2
import pytest

from agent_orchestration.certificates import Certificates
from agent_orchestration.rate_limits import Limits, RateLimits
from ao_gateway.addresses import Network
from ao_gateway.app import Gateway
from ao_gateway.listening import listen, url
from ao_gateway.server import GatewayServer
from tests.gateway.scripted import GATEWAY_KEY, ScriptedServer

DEADLINE = 10.0
NO_LIMITS = Limits(0, 0)


@dataclass
class Running:
    """A gateway that serves in this process, in front of a scripted server."""

    gateway: Gateway
    server: GatewayServer
    upstream: ScriptedServer
    url: str

    @property
    def port(self) -> int:
        return int(self.url.removesuffix("/v1").rsplit(":", 1)[1])

    @property
    def ws_url(self) -> str:
        return self.url.replace("http", "ws", 1) + "/ws"

    async def connected(self) -> None:
        async with asyncio.timeout(DEADLINE):
            await self.gateway.relay.connected.wait()


async def until(condition: Callable[[], bool]) -> None:
    """Waits for a state that nothing signals."""
    async with asyncio.timeout(DEADLINE):
        while True:
            if condition():
                return
            await asyncio.sleep(0.005)


@asynccontextmanager
async def serving(
    upstream: ScriptedServer,
    limits: RateLimits | None = None,
    *,
    origins: Sequence[str] = (),
    trusted_proxies: Sequence[Network] = (),
    public_url: str | None = None,
    certificates: Certificates | None = None,
) -> AsyncGenerator[Running]:
    sockets = listen("127.0.0.1", 0)
    gateway = Gateway(
        upstream.address,
        lambda: GATEWAY_KEY,
        limits or RateLimits(NO_LIMITS),
        origins=origins,
        trusted_proxies=trusted_proxies,
        public_url=public_url,
    )
    server = GatewayServer(gateway, certificates)
    task = asyncio.create_task(server.serve(sockets))
    try:
        async with asyncio.timeout(DEADLINE):
            await server.is_serving.wait()
        scheme = "http" if certificates is None else "https"
        yield Running(gateway, server, upstream, url(sockets[0], scheme))
    finally:
        server.stop()
        async with asyncio.timeout(DEADLINE):
            await task


@pytest.fixture
async def upstream() -> AsyncGenerator[ScriptedServer]:
    server = ScriptedServer()
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def running(upstream: ScriptedServer) -> AsyncGenerator[Running]:
    async with serving(upstream) as running:
        await running.connected()
        yield running


@pytest.fixture
async def client(running: Running) -> AsyncGenerator[httpx2.AsyncClient]:
    headers = {"Authorization": "Bearer ao_live_one"}
    async with httpx2.AsyncClient(base_url=running.url, headers=headers, timeout=DEADLINE, trust_env=False) as client:
        yield client

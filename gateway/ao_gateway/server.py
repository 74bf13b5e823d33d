"""uvicorn around the gateway: our protocols and limits, our signals, a stop that leaves nobody without an answer."""

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import structlog
import uvicorn

from agent_orchestration.certificates import Certificates
from ao_gateway import protection
from ao_gateway.app import Gateway
from ao_gateway.http_protocol import HttpProtocol
from ao_gateway.socket_protocol import SocketProtocol
from ao_gateway.supervision import supervised

log: Any = structlog.get_logger("ao_gateway")

MAX_FRAME_BYTES: Final = 64 * 1024
PING_SECONDS: Final = 20.0
KEEP_ALIVE_SECONDS: Final = 75
# A part of the 10 s that a stop may take in all: `ao dev` stops the server after the gateway.
DRAIN_SECONDS: Final = 5


async def serve(
    gateway: Gateway,
    sockets: Sequence[socket.socket],
    ready: Callable[[], None],
    certificates: Certificates | None = None,
) -> None:
    """Serves until SIGTERM or SIGINT; a second one ends the process at once.

    `ready` is called once, when requests succeed: the sockets listen and the server answers.
    """
    server = GatewayServer(gateway, certificates)
    beside = [asyncio.create_task(_announce(gateway, server, ready))]
    if certificates is not None:
        beside.append(supervised("certificates", lambda: certificates.follow(log)))

    def stop() -> None:
        if server.should_exit:
            os._exit(1)
        server.stop()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    try:
        await server.serve(list(sockets))
    finally:
        for task in beside:
            task.cancel()


class GatewayServer(uvicorn.Server):
    """uvicorn with our protocols and limits. `is_serving` is set once connections are accepted."""

    def __init__(self, gateway: Gateway, certificates: Certificates | None = None) -> None:
        headers = protection.ALWAYS + ([] if certificates is None else protection.OVER_TLS)
        config = uvicorn.Config(
            gateway.application,
            interface="asgi3",
            http=HttpProtocol,
            ws=SocketProtocol,
            lifespan="on",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            headers=[(name.decode(), value.decode()) for name, value in headers],
            ssl_context_factory=None if certificates is None else lambda config, default: certificates.context(),
            ws_max_size=MAX_FRAME_BYTES,
            ws_ping_interval=PING_SECONDS,
            ws_ping_timeout=PING_SECONDS,
            ws_per_message_deflate=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=DRAIN_SECONDS,
        )
        super().__init__(config)
        self._gateway = gateway
        self.is_serving = asyncio.Event()

    def stop(self) -> None:
        """Begins the graceful stop."""
        self._gateway.stop()
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begins to accept connections."""
        await super().startup(sockets)
        self.is_serving.set()

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Leaves signals to us: uvicorn would raise them again after the stop."""
        yield


async def _announce(gateway: Gateway, server: GatewayServer, ready: Callable[[], None]) -> None:
    await server.is_serving.wait()
    await gateway.relay.connected.wait()
    ready()

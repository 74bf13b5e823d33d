"""A process full of agents: the link thread beside the user's loop, signals, and the way out."""

import asyncio
import logging
import os
import secrets
import signal
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Final, cast

import grpc

from agent_orchestration.v1 import runners_pb2_grpc
from agent_runner.agent import Agent
from agent_runner.attempts import Attempts
from agent_runner.link import Address, Introduction, Link, Refused
from agent_runner.outbox import Outbox

log = logging.getLogger("agent_runner")

DEFAULT_SERVER: Final = "127.0.0.1:50051"
DRAIN_SECONDS: Final = 25.0
GOODBYE_SECONDS: Final = 3.0
MESSAGE_BYTES: Final = 16 * 1024 * 1024
REFUSED: Final = 2
_OPTIONS: Final = [
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    ("grpc.max_send_message_length", MESSAGE_BYTES),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
]


class BadSettings(Exception):
    """An address or key that cannot be used; the text says which and why."""


def connection(server: str | None, api_key: str | None) -> Address:
    """Where to connect to, from the arguments or else the environment. BadSettings when it is not usable."""
    place = (server or os.environ.get("AGENT_ORCHESTRATION_SERVER") or DEFAULT_SERVER).strip()
    host, _, port = place.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise BadSettings(f"the server must be HOST:PORT, not {place!r}")
    key = (api_key if api_key is not None else os.environ.get("AGENT_ORCHESTRATION_API_KEY", "")).strip()
    if not key:
        raise BadSettings("an API key is needed: set AGENT_ORCHESTRATION_API_KEY")
    if not all("!" <= character <= "~" for character in key):
        raise BadSettings("AGENT_ORCHESTRATION_API_KEY must be printable ASCII without spaces")
    return Address(host.strip("[]"), int(port), key)


def run(
    agents: Sequence[Agent], server: str | None = None, api_key: str | None = None, drain_timeout: float = DRAIN_SECONDS
) -> None:
    """Serves until a signal, then ends the process: 0 after draining, 2 when it was refused."""
    if not logging.getLogger().handlers:
        logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    try:
        runner = Runner(agents, connection(server, api_key))
        asyncio.run(_until_signal(runner, drain_timeout))
    except (BadSettings, Refused) as problem:
        print(f"error: {problem}", file=sys.stderr)
        sys.stderr.flush()
        os._exit(REFUSED)
    # Plain functions that do not end would hold up a normal exit.
    sys.stdout.flush()
    os._exit(0)


async def _until_signal(runner: "Runner", drain_timeout: float) -> None:
    stop = asyncio.Event()

    def signalled() -> None:
        if stop.is_set():
            os._exit(1)
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signalled)
    serving = asyncio.create_task(runner.serve())
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait([serving, stopping], return_when=asyncio.FIRST_COMPLETED)
    if stop.is_set():
        await runner.drain(drain_timeout)
    stopping.cancel()
    await serving


class Runner:
    """Several agents, one thread for all their links. Agent code runs in the loop that calls `serve`."""

    def __init__(self, agents: Sequence[Agent], address: Address) -> None:
        self._agents = agents
        self._address = address
        self._links: list[Link] = []
        self._link_loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run_links, name="link", daemon=True)
        self._serving: Future[None] | None = None

    async def serve(self) -> None:
        """Serves until every link has said goodbye. Refused when the server will not have one of the agents."""
        user_loop = asyncio.get_running_loop()
        self._thread.start()
        self._serving = asyncio.run_coroutine_threadsafe(self._connect(user_loop), self._link_loop)
        try:
            await asyncio.wrap_future(self._serving)
        finally:
            self._link_loop.call_soon_threadsafe(self._link_loop.stop)

    async def drain(self, timeout: float) -> None:
        """Lets running work end, hands back the rest, says goodbye; `serve` then returns. `timeout` in seconds."""
        draining = asyncio.run_coroutine_threadsafe(self._drain(timeout), self._link_loop)
        await asyncio.wrap_future(draining)

    def _run_links(self) -> None:
        asyncio.set_event_loop(self._link_loop)
        self._link_loop.run_forever()

    async def _connect(self, user_loop: asyncio.AbstractEventLoop) -> None:
        host = f"[{self._address.host}]" if ":" in self._address.host else self._address.host
        async with grpc.aio.insecure_channel(f"{host}:{self._address.port}", options=_OPTIONS) as channel:
            # With an asyncio channel the stub is the asynchronous one.
            stub = cast(runners_pb2_grpc.RunnerServiceAsyncStub, runners_pb2_grpc.RunnerServiceStub(channel))
            self._links = [self._link(agent, stub, user_loop) for agent in self._agents]
            try:
                async with asyncio.TaskGroup() as group:
                    for link in self._links:
                        group.create_task(link.run())
            except* Refused as refused:
                raise refused.exceptions[0] from None

    def _link(
        self, agent: Agent, stub: runners_pb2_grpc.RunnerServiceAsyncStub, user_loop: asyncio.AbstractEventLoop
    ) -> Link:
        loop = self._link_loop

        def wake() -> None:
            if not link.is_awake:
                loop.call_soon_threadsafe(link.wake)

        outbox = Outbox(wake)
        introduction = Introduction(
            instance_id=f"{os.getpid()}-{secrets.token_hex(8)}",
            agent_id=agent.agent_id,
            type=agent.type,
            name=agent.name,
            task_types=tuple(agent.handlers),
            configuration=agent.configuration,
            environment=agent.environment,
        )
        attempts = Attempts(agent.handlers, outbox, user_loop)
        link = Link(introduction, self._address, stub, attempts, outbox)
        return link

    async def _drain(self, timeout: float) -> None:
        await asyncio.gather(*(link.drain(timeout) for link in self._links))
        if self._serving is not None:
            _, unfinished = await asyncio.wait([asyncio.wrap_future(self._serving)], timeout=GOODBYE_SECONDS)
            if unfinished:
                # It cannot reach the server: there is nobody to say goodbye to.
                self._serving.cancel()

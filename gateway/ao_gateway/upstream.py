"""The channels to the server, and the gateway's own credential on them."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import grpc
from google.protobuf.message import Message

from agent_orchestration.tls import UNIX, Connecting, Unusable
from agent_orchestration.v1.access_pb2_grpc import AccessServiceStub
from agent_orchestration.v1.monitoring_pb2_grpc import MonitoringServiceStub
from agent_orchestration.v1.relay_pb2_grpc import RelayServiceStub

MAX_MESSAGE_BYTES: Final = 16 * 1024 * 1024
PROJECT_KEY: Final = "agent-orchestration-project"
GATEWAY_KEY: Final = "agent-orchestration-gateway"
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.initial_reconnect_backoff_ms", 100),
    # How long one attempt to connect may take, despite its name.
    ("grpc.min_reconnect_backoff_ms", 5000),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # A proxy named in the environment is for the outside world, not for this hop.
    ("grpc.enable_http_proxy", 0),
)

# Of streams with readers of their own. gRPC would read megabytes ahead for each, however little its reader takes.
_PACED_OPTIONS: Final = (
    *_OPTIONS,
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 64 * 1024),
    ("grpc.use_local_subchannel_pool", 1),
)

# How often to look whether anybody listens at the server's address.
LOOK_SECONDS: Final = 0.02

Metadata = tuple[tuple[str, str], ...]
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class NoCredential(Exception):
    """The gateway has no usable credential of its own, or not yet."""


class Upstream:
    """The server as the gateway sees it. `read_key` gives the gateway's credential, anew for each connect."""

    def __init__(self, server: str, read_key: Callable[[], str], tls: Connecting | None = None) -> None:
        self._address = server
        self._read_key = read_key
        self._tls = tls
        self._files = tls.read() if tls is not None else None
        self._open()

    def _open(self) -> None:
        credentials = grpc.ssl_channel_credentials(*self._files) if self._files is not None else None
        self._channel = _channel(self._address, credentials, _OPTIONS)
        self._paced_channel = _channel(self._address, credentials, _PACED_OPTIONS)
        self.relay = RelayServiceStub(self._channel)
        self.access = AccessServiceStub(self._channel)
        self.monitoring = MonitoringServiceStub(self._channel)

    async def renew(self) -> None:
        """Takes up files of TLS that were replaced, which ends what is left on the channels. NoCredential when they
        cannot be used just now.
        """
        if self._tls is None:
            return
        try:
            files = await asyncio.to_thread(self._tls.read)
        except Unusable as problem:
            raise NoCredential(str(problem)) from None
        if files != self._files:
            await self.close()
            self._files = files
            self._open()

    def metadata(self, project_id: str | None = None) -> Metadata:
        """What the gateway's own calls carry; with the project that one acts in. NoCredential when there is no key."""
        authorization = (("authorization", f"Bearer {self._read_key()}"),)
        return authorization if project_id is None else (*authorization, (PROJECT_KEY, project_id))

    def on_behalf_of(self, credential: str, request_id: str) -> Metadata:
        """What a call under a user's credential carries beside it: that it comes through a gateway, which counts it.

        NoCredential when the gateway has no key.
        """
        return (
            ("authorization", f"Bearer {credential}"),
            (GATEWAY_KEY, self._read_key()),
            ("x-request-id", request_id),
        )

    async def listening(self, seconds: float) -> None:
        """Waits until somebody listens at the server's address, at most so long.

        gRPC would look ever more rarely, and so find a server that is being started long after it is there.
        """
        connect = _connect(self._address)
        if connect is None:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                # Nothing tells of a port of another process.
                while not await _is_listening(connect):  # noqa: ASYNC110
                    await asyncio.sleep(LOOK_SECONDS)

    def open_stream(self, rpc: str, request: Message, response: type[Message], metadata: Metadata) -> Any:
        """A call of any RPC that streams its answers, under a credential that the metadata holds.

        It waits for the server if need be, and is read only as fast as its reader asks.
        """
        method: Any = self._paced_channel.unary_stream(
            rpc, request_serializer=type(request).SerializeToString, response_deserializer=response.FromString
        )
        return method(request, metadata=metadata, wait_for_ready=True)

    async def close(self) -> None:
        """Ends the channels and what is left on them."""
        await self._channel.close()
        await self._paced_channel.close()


def _channel(
    server: str, credentials: grpc.ChannelCredentials | None, options: Sequence[tuple[str, int]]
) -> grpc.aio.Channel:
    if credentials is None:
        return grpc.aio.insecure_channel(server, options=options)
    return grpc.aio.secure_channel(server, credentials, options=options)


def _connect(address: str) -> Callable[[], Awaitable[Connection]] | None:
    """Connects to an address; None for one that only gRPC understands."""
    if address.startswith(UNIX):
        return partial(asyncio.open_unix_connection, address.removeprefix(UNIX))
    host, _, port = address.rpartition(":")
    if not port.isdecimal() or "/" in host:
        return None
    return partial(asyncio.open_connection, host.strip("[]"), int(port))


async def _is_listening(connect: Callable[[], Awaitable[Connection]]) -> bool:
    try:
        _, writer = await connect()
    except OSError:
        return False
    writer.close()
    return True


def key_reader(key: str | None, data_dir: Path) -> Callable[[], str]:
    """Gives the key that was set, else the one that the server has written to the data folder."""
    if key is not None:
        return lambda: key
    path = data_dir / "gateway.key"

    def read() -> str:
        try:
            text = path.read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            raise NoCredential(f"{path} cannot be read") from None
        if not text or not all("!" <= character <= "~" for character in text):
            raise NoCredential(f"{path} holds no key")
        return text

    return read

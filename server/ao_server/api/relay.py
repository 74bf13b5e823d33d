"""RelayService: a gateway's unary calls over one stream, each through the same checks as if it had come alone."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from google.rpc import status_pb2

from agent_orchestration.v1 import relay_pb2, relay_pb2_grpc
from ao_server.api import calls, errors
from ao_server.api.methods import Methods
from ao_server.errors import Unavailable

MAX_IN_FLIGHT: Final = 1_000
# Of calls that only wait for something to happen.
MAX_PARKED: Final = 5_000
BATCH_BYTES: Final = 1024 * 1024


@dataclass(slots=True)
class _Running:
    """The calls of one gateway that are not answered yet; `parked`: how many of them only wait."""

    tasks: dict[int, asyncio.Task[None]] = field(default_factory=dict[int, asyncio.Task[None]])
    parked: int = 0

    @property
    def is_full(self) -> bool:
        return len(self.tasks) - min(self.parked, MAX_PARKED) >= MAX_IN_FLIGHT

    def park(self, is_parked: bool) -> None:
        self.parked += 1 if is_parked else -1


class RelayServicer(relay_pb2_grpc.RelayServiceServicer):
    """Serves gateways."""

    def __init__(self, methods: Methods) -> None:
        self._methods = methods
        self._in_flight = 0
        self._is_idle = asyncio.Event()
        self._is_idle.set()

    async def idle(self) -> None:
        """Returns once every call of every gateway is answered."""
        await self._is_idle.wait()

    async def Relay(
        self, request_iterator: AsyncIterator[relay_pb2.RelayRequest], context: Any
    ) -> AsyncIterator[relay_pb2.RelayResponse]:
        """Answers calls until the gateway closes the stream; calls of a broken stream are given up."""
        replies: asyncio.Queue[relay_pb2.RelayReply | None] = asyncio.Queue()
        running = _Running()
        reader = asyncio.create_task(self._read(request_iterator, running, replies))
        try:
            while (reply := await replies.get()) is not None:
                yield _batch(reply, replies)
            await reader
        finally:
            reader.cancel()
            with suppress(asyncio.CancelledError):
                await reader
            for task in running.tasks.values():
                task.cancel()

    async def _read(
        self,
        requests: AsyncIterator[relay_pb2.RelayRequest],
        running: "_Running",
        replies: "asyncio.Queue[relay_pb2.RelayReply | None]",
    ) -> None:
        try:
            async for request in requests:
                for number in request.cancelled:
                    if number in running.tasks:
                        running.tasks.pop(number).cancel()
                for call in request.calls:
                    if running.is_full:
                        status = errors.status_of(Unavailable("too many calls are in flight"))
                        replies.put_nowait(_reply(call.id, status))
                    else:
                        running.tasks[call.id] = asyncio.create_task(self._run(call, running, replies))
        finally:
            replies.put_nowait(None)

    async def _run(
        self,
        call: relay_pb2.RelayCall,
        running: "_Running",
        replies: "asyncio.Queue[relay_pb2.RelayReply | None]",
    ) -> None:
        self._in_flight += 1
        self._is_idle.clear()
        try:
            timeout = calls.DEFAULT_TIMEOUT_SECONDS
            if call.HasField("timeout"):
                timeout = max(0.0, call.timeout.ToMicroseconds() / 1e6)
            metadata = dict(call.metadata)
            outcome = await self._methods.relayed(call.method, call.message, metadata, timeout, running.park)
            replies.put_nowait(_reply(call.id, outcome))
        finally:
            self._in_flight -= 1
            if self._in_flight == 0:
                self._is_idle.set()
            running.tasks.pop(call.id, None)


def _reply(number: int, outcome: bytes | status_pb2.Status) -> relay_pb2.RelayReply:
    if isinstance(outcome, bytes):
        return relay_pb2.RelayReply(id=number, message=outcome)
    return relay_pb2.RelayReply(id=number, status=outcome.SerializeToString())


def _batch(
    first: relay_pb2.RelayReply, replies: "asyncio.Queue[relay_pb2.RelayReply | None]"
) -> relay_pb2.RelayResponse:
    """This reply and those that wait behind it, up to the size of a batch."""
    batch = relay_pb2.RelayResponse(replies=[first])
    size = first.ByteSize()
    while size < BATCH_BYTES and not replies.empty():
        reply = replies.get_nowait()
        if reply is None:
            replies.put_nowait(None)
            break
        batch.replies.append(reply)
        size += reply.ByteSize()
    return batch

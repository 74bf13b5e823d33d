"""RelayService: a gateway's unary calls over one stream, each through the same checks as if it had come alone."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, Final

from google.rpc import status_pb2

from agent_orchestration.v1 import relay_pb2, relay_pb2_grpc
from ao_server.api import calls, errors
from ao_server.api.deadlines import Deadlines
from ao_server.api.methods import Methods
from ao_server.errors import Unavailable

MAX_IN_FLIGHT: Final = 1_000
# Of calls that only wait for something to happen.
MAX_PARKED: Final = 5_000
BATCH_BYTES: Final = 1024 * 1024


class _Call:
    """What a gateway asks for, copied: a message that is kept keeps all that came with it."""

    __slots__ = ("id", "message", "metadata", "method", "timeout")

    def __init__(self, call: relay_pb2.RelayCall) -> None:
        self.id = call.id
        self.method = call.method
        self.message = call.message
        metadata = call.metadata
        self.metadata = {name: metadata[name] for name in metadata}
        self.timeout = calls.DEFAULT_TIMEOUT_SECONDS
        if call.HasField("timeout"):
            self.timeout = max(0.0, call.timeout.seconds + call.timeout.nanos / 1e9)


class _Gateway:
    """The calls of one gateway: those that are not answered yet, and the answers that are not sent yet.

    `parked`: how many of the first only wait.
    """

    def __init__(self) -> None:
        self.tasks: dict[int, asyncio.Task[None]] = {}
        self.parked = 0
        self.is_over = False
        # Set when there is something to send, or nothing any more.
        self.wake = asyncio.Event()
        self._outcomes: deque[tuple[int, bytes | status_pb2.Status]] = deque()

    @property
    def is_full(self) -> bool:
        return len(self.tasks) - min(self.parked, MAX_PARKED) >= MAX_IN_FLIGHT

    def park(self, is_parked: bool) -> None:
        self.parked += 1 if is_parked else -1

    def reply(self, number: int, outcome: bytes | status_pb2.Status) -> None:
        """Takes the answer of a call."""
        self._outcomes.append((number, outcome))
        self.wake.set()

    def next_batch(self) -> relay_pb2.RelayResponse | None:
        """The answers that wait, up to the size of a batch; None when there is none."""
        if not self._outcomes:
            return None
        batch = relay_pb2.RelayResponse()
        size = 0
        while self._outcomes and size < BATCH_BYTES:
            number, outcome = self._outcomes.popleft()
            if isinstance(outcome, bytes):
                size += len(outcome)
                batch.replies.add(id=number, message=outcome)
            else:
                batch.replies.add(id=number, status=outcome.SerializeToString())
        return batch


class RelayServicer(relay_pb2_grpc.RelayServiceServicer):
    """Serves gateways."""

    def __init__(self, methods: Methods) -> None:
        self._methods = methods
        self._deadlines = Deadlines()
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
        gateway = _Gateway()
        reader = asyncio.create_task(self._read(request_iterator, gateway))
        try:
            while not gateway.is_over:
                await gateway.wake.wait()
                gateway.wake.clear()
                while (batch := gateway.next_batch()) is not None:
                    yield batch
            await reader
        finally:
            reader.cancel()
            with suppress(asyncio.CancelledError):
                await reader
            for task in gateway.tasks.values():
                task.cancel()

    async def _read(self, requests: AsyncIterator[relay_pb2.RelayRequest], gateway: _Gateway) -> None:
        try:
            async for request in requests:
                for number in request.cancelled:
                    if number in gateway.tasks:
                        gateway.tasks.pop(number).cancel()
                for call in request.calls:
                    if gateway.is_full:
                        gateway.reply(call.id, errors.status_of(Unavailable("too many calls are in flight")))
                    else:
                        self._start(_Call(call), gateway)
        finally:
            gateway.is_over = True
            gateway.wake.set()

    def _start(self, call: _Call, gateway: _Gateway) -> None:
        task = asyncio.create_task(self._run(call, gateway))
        gateway.tasks[call.id] = task
        self._deadlines.start(task, call.timeout)
        self._in_flight += 1
        self._is_idle.clear()
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._deadlines.finish(task)
        self._in_flight -= 1
        if self._in_flight == 0:
            self._is_idle.set()

    async def _run(self, call: _Call, gateway: _Gateway) -> None:
        try:
            outcome = await self._methods.relayed(call.method, call.message, call.metadata, call.timeout, gateway.park)
        except asyncio.CancelledError:
            task = gateway.tasks.get(call.id)
            if task is None or not self._deadlines.is_over(task):
                raise
            outcome = errors.status_of(calls.too_late())
        finally:
            gateway.tasks.pop(call.id, None)
        gateway.reply(call.id, outcome)

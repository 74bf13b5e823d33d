"""The client of RelayService: all unary calls of all users over one long-lived stream, batched as they come.

A stream that breaks is opened again with backoff. Calls that it left without an answer have an unknown outcome: those
that only read are sent once more, those that write are answered 503.
"""

import asyncio
import math
import random
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

import grpc
import structlog
from google.rpc import status_pb2

from agent_orchestration.v1 import relay_pb2
from ao_gateway.deadline import Deadline
from ao_gateway.errors import STOPPING, Refusal, from_status, too_late, unavailable
from ao_gateway.in_flight import InFlight, Pending
from ao_gateway.upstream import NoCredential, Upstream

log: Any = structlog.get_logger("ao_gateway.relay")

BATCH_BYTES: Final = 1024 * 1024
FIRST_BACKOFF_SECONDS: Final = 0.1
MAX_BACKOFF_SECONDS: Final = 1.0
# A read that lost its stream waits this long for the next one.
RETRY_WAIT_SECONDS: Final = 5.0
# The server answers at its deadline; silence beyond this grace means that the answer is lost.
GRACE_SECONDS: Final = 2.0
# A silent stream is asked for a sign of life after the first, and given up after the second.
QUIET_SECONDS: Final = 5.0
DEAD_SECONDS: Final = 15.0
TOO_MANY: Final = "Too many requests are in flight"
# Any answer to this is a sign of life; without a credential it is a refusal that costs the server nothing.
PROBE_METHOD: Final = "/agent_orchestration.v1.MonitoringService/GetHealth"
PROBE_ID: Final = 0


class _Silent(Exception):
    """The server holds the stream open and says nothing."""


class Relay:
    """Relays calls. `connected` is set while the server is known to answer."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._in_flight = InFlight()
        self._outgoing: deque[int] = deque()
        self._cancelled: list[int] = []
        self._wake = asyncio.Event()
        self._next_id = PROBE_ID + 1
        self._probing = False
        self._heard_at = 0.0
        self._takes_waiting = True
        self._on_lost: list[Callable[[], None]] = []
        self._expiry = Deadline()
        self._expires_at = math.inf
        self.connected = asyncio.Event()

    def on_lost(self, told: Callable[[], None]) -> None:
        """Tells each time that the server is gone."""
        self._on_lost.append(told)

    async def call(
        self,
        method: str,
        message: bytes,
        metadata: Mapping[str, str],
        *,
        timeout: float,
        is_read: bool,
        is_waiting: bool = False,
    ) -> bytes:
        """The serialized response of a unary RPC. Refusal when the server refuses, is away, or too many are in flight.

        `timeout` is in seconds. `is_read` says that the call may be sent twice, `is_waiting` that the server keeps it
        until something happens. Cancelling it cancels the call at the server.
        """
        if not self.connected.is_set():
            raise unavailable("The server cannot be reached")
        if is_waiting and not self._takes_waiting:
            raise unavailable(STOPPING)
        if not self._in_flight.has_room(len(message), is_waiting=is_waiting):
            raise unavailable(TOO_MANY)
        number = self._next_id
        self._next_id += 1
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        deadline = time.monotonic() + timeout
        pending = Pending(number, method, message, metadata, is_read, is_waiting, deadline, answer)
        self._in_flight.add(pending)
        self._queue(number)
        if deadline + GRACE_SECONDS < self._expires_at:
            self._expire_at(deadline + GRACE_SECONDS)
        try:
            return await answer
        finally:
            if self._in_flight.pop(number) is not None and pending.is_sent:
                self._cancelled.append(number)
                self._wake.set()

    @property
    def has_room(self) -> bool:
        """Whether one more call that does not wait may be in flight."""
        return self._in_flight.has_room(0, is_waiting=False)

    def end_waiting(self) -> None:
        """Answers the calls that wait, and all later ones: the gateway stops sooner than they would."""
        self._takes_waiting = False
        for pending in self._in_flight.pending.values():
            if pending.is_waiting:
                _fail(pending, unavailable(STOPPING))

    async def run(self) -> None:
        """Keeps a stream open until cancelled."""
        backoff = FIRST_BACKOFF_SECONDS
        last_reason = ""
        try:
            while True:
                await self._upstream.listening(MAX_BACKOFF_SECONDS)
                try:
                    await self._serve_stream()
                except (NoCredential, _Silent) as error:
                    reason = str(error)
                except grpc.aio.AioRpcError as error:
                    reason = f"{error.code().name}: {error.details()}"
                else:
                    reason = "the server ended the stream"
                if self.connected.is_set():
                    backoff = FIRST_BACKOFF_SECONDS
                    log.warning("relay_lost", reason=reason)
                elif reason != last_reason:
                    log.info("relay_not_connected", reason=reason)
                last_reason = reason
                self._lost()
                await asyncio.sleep(backoff * random.uniform(0.5, 1.0))
                backoff = min(backoff * 2, MAX_BACKOFF_SECONDS)
        finally:
            self._expiry.close()
            self.connected.clear()
            for pending in list(self._in_flight.pending.values()):
                _fail(pending, unavailable(STOPPING))

    async def _serve_stream(self) -> None:
        # Without a relay nothing else is left that a fresh certificate would cut short.
        await self._upstream.renew()
        stream: Any = self._upstream.relay.Relay(metadata=self._upstream.metadata())
        self._heard_at = time.monotonic()
        self._probing = True
        self._wake.set()
        tasks = [asyncio.create_task(each) for each in (self._read(stream), self._watch(), self._write(stream))]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            stream.cancel()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self, stream: Any) -> None:
        async for response in stream:
            self._heard_at = time.monotonic()
            if not self.connected.is_set():
                log.info("relay_connected")
                self.connected.set()
                self._retry()
            for reply in response.replies:
                pending = self._in_flight.pop(reply.id)
                if pending is None:
                    continue
                if reply.HasField("message"):
                    if not pending.answer.done():
                        pending.answer.set_result(reply.message)
                else:
                    _fail(pending, from_status(status_pb2.Status.FromString(reply.status)))

    async def _write(self, stream: Any) -> None:
        while True:
            await self._wake.wait()
            # A message costs as much as several calls: what comes in the same turn of the loop goes with it.
            await asyncio.sleep(0)
            self._wake.clear()
            while self._probing or self._cancelled or (self._outgoing and self.connected.is_set()):
                try:
                    await stream.write(self._batch())
                except asyncio.InvalidStateError:
                    # The stream is over; the reader knows why.
                    return

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(QUIET_SECONDS / 2)
            silence = time.monotonic() - self._heard_at
            if silence > DEAD_SECONDS:
                raise _Silent(f"no answer for {silence:.0f} s")
            elif silence > QUIET_SECONDS:
                self._probing = True
                self._wake.set()

    def _batch(self) -> relay_pb2.RelayRequest:
        """All that waits, up to the size of a batch."""
        request = relay_pb2.RelayRequest(cancelled=self._cancelled)
        self._cancelled = []
        if self._probing:
            self._probing = False
            request.calls.add(id=PROBE_ID, method=PROBE_METHOD)
        size = 0
        now = time.monotonic()
        while self._outgoing and self.connected.is_set():
            pending = self._in_flight.pending.get(self._outgoing[0])
            if pending is not None:
                if size and size + len(pending.message) > BATCH_BYTES:
                    break
                size += len(pending.message)
                pending.is_sent = True
                seconds, rest = divmod(max(1000, round((pending.deadline - now) * 1e6)), 1_000_000)
                call = request.calls.add(
                    id=pending.number,
                    method=pending.method,
                    message=pending.message,
                    timeout={"seconds": seconds, "nanos": rest * 1000},
                )
                # A map that is given as a whole is copied by Python code.
                for key, value in pending.metadata.items():
                    call.metadata[key] = value
            self._outgoing.popleft()
        return request

    def _expire_at(self, time_: float) -> None:
        self._expires_at = time_
        self._expiry.set(time_ - time.monotonic(), self._expire)

    def _expire(self) -> None:
        """Gives up the calls that the server has left without an answer beyond their deadline."""
        latest = time.monotonic() - GRACE_SECONDS
        self._expires_at = math.inf
        for pending in self._in_flight.pending.values():
            if pending.answer.done():
                continue
            if pending.deadline <= latest:
                _fail(pending, too_late("The server did not answer in time"))
            else:
                self._expires_at = min(self._expires_at, pending.deadline + GRACE_SECONDS)
        if self._expires_at < math.inf:
            self._expire_at(self._expires_at)

    def _queue(self, number: int) -> None:
        self._outgoing.append(number)
        self._wake.set()

    def _lost(self) -> None:
        """Sorts out the calls of a broken stream."""
        if self.connected.is_set():
            for told in self._on_lost:
                told()
        self.connected.clear()
        self._cancelled = []
        self._outgoing.clear()
        for pending in list(self._in_flight.pending.values()):
            if pending.answer.done():
                continue
            if not pending.is_sent or (pending.is_read and not pending.is_retried):
                pending.is_retried = pending.is_retried or pending.is_sent
                pending.is_sent = False
                asyncio.get_running_loop().call_later(RETRY_WAIT_SECONDS, self._give_up, pending)
                continue
            self._in_flight.pop(pending.number)
            if pending.is_read:
                _fail(pending, unavailable("The server was lost twice"))
            else:
                _fail(pending, unavailable("The server was lost before it answered: the outcome is unknown"))

    def _retry(self) -> None:
        """Sends again what a broken stream left."""
        self._outgoing.extend(self._in_flight.pending)
        self._wake.set()

    def _give_up(self, pending: Pending) -> None:
        if not pending.is_sent and not self.connected.is_set():
            self._in_flight.pop(pending.number)
            _fail(pending, unavailable("The server cannot be reached"))


def _fail(pending: Pending, refusal: Refusal) -> None:
    if not pending.answer.done():
        pending.answer.set_exception(refusal)

"""The link of one agent to the server: hello, lease, work in, reports out, and reconnecting for as long as it takes.

It lives in the event loop of the link thread. Agent code never runs there, so nothing that it does can cost the lease.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import grpc

from agent_orchestration.v1 import runners_pb2, runners_pb2_grpc
from agent_runner.attempts import Attempts
from agent_runner.lease import LeaseClock
from agent_runner.load import Load, memory_usage, uptime
from agent_runner.outbox import Attempt, Outbox
from agent_runner.probe import is_refused

log = logging.getLogger("agent_runner")

PROTOCOL_VERSION: Final = 1
HELLO_SECONDS: Final = 10.0
FIRST_BACKOFF_SECONDS: Final = 0.2
MAX_BACKOFF_SECONDS: Final = 5.0
WARNING_EVERY_SECONDS: Final = 30.0
SETTLE_SECONDS: Final = 5.0
# Answers that will not change by asking again.
REFUSALS: Final = frozenset(
    {
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.INVALID_ARGUMENT,
    }
)


class Refused(Exception):
    """The server will not have this instance; the text says why."""


class _StreamEnded(Exception):
    """The stream is over and another may follow."""


@dataclass(frozen=True, slots=True)
class Introduction:
    """What an instance says of itself in each hello."""

    instance_id: str
    agent_id: str | None
    type: str
    name: str
    task_types: tuple[str, ...]
    configuration: str | None
    environment: str | None


@dataclass(frozen=True, slots=True)
class Address:
    """Where the server is, and the credential for it."""

    host: str
    port: int
    api_key: str


class Link:
    """Keeps one instance connected."""

    def __init__(
        self,
        introduction: Introduction,
        address: Address,
        stub: "runners_pb2_grpc.RunnerServiceAsyncStub",
        attempts: Attempts,
        outbox: Outbox,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`wake` must be called, in the link's loop, whenever the outbox has something to send."""
        self._introduction = introduction
        self._address = address
        self._stub = stub
        self._attempts = attempts
        self._outbox = outbox
        self._wake = asyncio.Event()
        self._changed = asyncio.Event()
        self._was_welcomed = False
        self._monotonic = monotonic
        self._clock = LeaseClock()
        self._load = Load()
        self._lease = 15.0
        self._limit = 0
        self._agent_id = ""
        self._status_number = 0
        self._last_assign = 0
        self._status_due = 0.0
        self._draining = False
        self._say_drain = False
        self._goodbye = False
        self._warned_at = -WARNING_EVERY_SECONDS

    async def run(self) -> None:
        """Serves until cancelled or until goodbye was said. Refused when the server will not have the instance."""
        failures = 0
        while True:
            self._was_welcomed = False
            try:
                return await self._stream()
            except _StreamEnded as ended:
                failures = 0 if self._was_welcomed else failures + 1
                self._warn(str(ended))
            await self._pause(failures)

    @property
    def is_awake(self) -> bool:
        """Whether the writer knows already that there is something to send."""
        return self._wake.is_set()

    def wake(self) -> None:
        """There is something to send."""
        self._wake.set()
        self._changed.set()

    async def drain(self, timeout: float) -> None:
        """Takes no more work, waits for what runs, then hands back the rest. `timeout` in seconds."""
        self._draining = True
        self._say_drain = True
        self._status_due = 0.0
        self.wake()
        await self._wait_until(lambda: not self._outbox.running(), timeout)
        self._attempts.hand_back()
        await self._wait_until(lambda: not self._outbox.held(), SETTLE_SECONDS)
        self._goodbye = True
        self.wake()

    async def _stream(self) -> None:
        """One stream from hello to its end: goodbye, or else _StreamEnded or Refused with the reason."""
        self._give_up_if_expired()
        refused = await is_refused(self._address.host, self._address.port)
        self._clock.connecting(self._monotonic(), refused=refused)
        if refused:
            raise _StreamEnded("no server listens there")
        self._wake.clear()
        call: Any = self._stub.Connect(metadata=(("authorization", f"Bearer {self._address.api_key}"),))
        welcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        reader = asyncio.create_task(self._read(call, welcome))
        try:
            self._clock.sent(0, self._monotonic())
            await call.write(runners_pb2.ConnectRequest(hello=self._hello()))
            await self._welcomed(welcome, reader)
            await self._write_until(call, reader)
        except asyncio.InvalidStateError:
            # The stream ended while a message was being written: the reader knows why.
            await _outcome_of(reader)
        except grpc.aio.AioRpcError as error:
            raise _ending(error) from None
        finally:
            call.cancel()
            reader.cancel()
            with suppress(asyncio.CancelledError, _StreamEnded, Refused):
                await reader

    def _hello(self) -> runners_pb2.Hello:
        me = self._introduction
        hello = runners_pb2.Hello(
            agent_id=me.agent_id,
            type=me.type,
            name=me.name,
            instance_id=me.instance_id,
            task_types=[runners_pb2.TaskType(name=name) for name in me.task_types],
            held=[attempt.message() for attempt in self._outbox.held()],
            configuration=me.configuration,
            environment=me.environment,
            protocol_version=PROTOCOL_VERSION,
        )
        hello.uptime.FromMicroseconds(round(uptime() * 1e6))
        return hello

    async def _welcomed(self, welcome: "asyncio.Future[None]", reader: "asyncio.Task[None]") -> None:
        await asyncio.wait([welcome, reader], timeout=HELLO_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if reader.done():
            await _outcome_of(reader)
        if not welcome.done():
            raise _StreamEnded("no answer to hello")
        self._was_welcomed = True
        self._status_number = 0
        self._status_due = self._monotonic()
        self._outbox.reconnected()

    async def _write_until(self, call: Any, reader: "asyncio.Task[None]") -> None:
        """The only writer: reports when there are any, a status when it is due, until the stream ends."""
        while not reader.done():
            self._wake.clear()
            self._give_up_if_expired()
            if self._say_drain:
                self._say_drain = False
                await call.write(runners_pb2.ConnectRequest(drain=runners_pb2.Drain()))
            for message in self._outbox.take():
                await call.write(message)
            if self._goodbye:
                await call.write(runners_pb2.ConnectRequest(drain=runners_pb2.Drain(goodbye=True)))
                await call.done_writing()
                await asyncio.wait([reader], timeout=SETTLE_SECONDS)
                return
            if self._monotonic() >= self._status_due:
                await self._send_status(call)
            await self._wait(reader)
        await _outcome_of(reader)

    async def _send_status(self, call: Any) -> None:
        self._status_number += 1
        now = self._monotonic()
        status = runners_pb2.Status(
            number=self._status_number,
            held=[attempt.message() for attempt in self._outbox.held()],
            last_assign=self._last_assign,
            capacity=0 if self._draining or self._outbox.is_full else self._limit,
            memory_usage=memory_usage(),
            cpu_usage=self._load.cpu_usage(),
        )
        status.uptime.FromMicroseconds(round(uptime() * 1e6))
        self._clock.sent(self._status_number, now)
        await call.write(runners_pb2.ConnectRequest(status=status))
        self._status_due = now + self._lease / 3

    async def _wait(self, reader: "asyncio.Task[None]") -> None:
        """Until there is something to send, the next status is due, or the stream ends."""
        woken = asyncio.ensure_future(self._wake.wait())
        timeout = max(0.0, self._status_due - self._monotonic())
        try:
            await asyncio.wait([woken, reader], timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            woken.cancel()

    async def _read(self, call: Any, welcome: "asyncio.Future[None]") -> None:
        """The only reader. Ends with the reason for which the stream ended."""
        try:
            async for response in call:
                self._take(response, welcome)
        except grpc.aio.AioRpcError as error:
            raise _ending(error) from None
        raise _StreamEnded("the server closed the stream")

    def _take(self, response: runners_pb2.ConnectResponse, welcome: "asyncio.Future[None]") -> None:
        match response.WhichOneof("message"):
            case "welcome":
                self._agent_id = response.welcome.agent_id
                self._last_assign = 0
                self._lease = response.welcome.lease.ToMicroseconds() / 1e6
                self._clock.welcomed(self._lease)
                self._configure(response.welcome.configure)
                if not welcome.done():
                    welcome.set_result(None)
            case "renewed":
                self._clock.renewed(response.renewed.number)
            case "assign":
                self._last_assign = response.assign.number
                self._attempts.start(response.assign.assignments, self._agent_id)
            case "settled":
                for settlement in response.settled.settlements:
                    self._outbox.settle(Attempt(settlement.attempt.task_id, settlement.attempt.number))
                self._changed.set()
            case "cancel":
                attempt = response.cancel.attempt
                self._attempts.abandon([Attempt(attempt.task_id, attempt.number)])
            case "configure":
                self._configure(response.configure)
            case "stopping":
                self._clock.stopping(self._monotonic())
            case _:
                log.debug("a message of a newer protocol was ignored")

    def _configure(self, configure: runners_pb2.Configure) -> None:
        self._limit = configure.max_concurrent_tasks
        self._attempts.resize(self._limit)
        self._status_due = 0.0

    def _give_up_if_expired(self) -> None:
        """Stops everything once the server may have handed it to others, before a word of it is reported."""
        if self._clock.is_expired(self._monotonic()):
            self._clock.reset()
            held = self._outbox.held()
            if held:
                log.warning("the lease ran out: %d attempts are given up", len(held))
                self._attempts.abandon(held)

    async def _pause(self, failures: int) -> None:
        """Full jitter, so that a fleet does not come back in lockstep."""
        limit = min(FIRST_BACKOFF_SECONDS * 2 ** min(failures, 10), MAX_BACKOFF_SECONDS)
        until = self._monotonic() + random.uniform(0, limit)
        while (left := until - self._monotonic()) > 0:
            self._give_up_if_expired()
            await asyncio.sleep(min(left, 0.5))

    async def _wait_until(self, done: Callable[[], bool], timeout: float) -> None:
        """Looks whenever the outbox changes."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while not done():
                    self._changed.clear()
                    await self._changed.wait()

    def _warn(self, reason: str) -> None:
        now = self._monotonic()
        if now - self._warned_at >= WARNING_EVERY_SECONDS:
            self._warned_at = now
            log.warning("%s: not connected (%s); trying again", self._introduction.name, reason)


async def _outcome_of(reader: "asyncio.Task[None]") -> None:
    """Raises what the reader ended with."""
    await reader


def _ending(error: grpc.aio.AioRpcError) -> Exception:
    details = error.details() or error.code().name
    return Refused(details) if error.code() in REFUSALS else _StreamEnded(details)

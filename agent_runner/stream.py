"""One stream to the server, from hello to its end: one task reads, one writes."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

import grpc

from agent_orchestration.v1 import runners_pb2
from agent_runner import messages
from agent_runner.attempts import Stop
from agent_runner.flight import Flight
from agent_runner.instance import Instance
from agent_runner.outbox import AttemptId

HELLO_SECONDS: Final = 10.0
CLOSE_SECONDS: Final = 2.0
# A status unanswered for a third of the lease, but no less than this, means that the stream is dead.
MIN_PATIENCE_SECONDS: Final = 2.0
# Lines and progress are sent at once after a pause, and at most so often when they keep coming.
REPORT_SECONDS: Final = 0.02
# Answers that do not change by asking again.
REFUSALS: Final = frozenset(
    {
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.INVALID_ARGUMENT,
    }
)
_CANCELS: Final = {
    runners_pb2.CANCEL_REASON_REQUESTED: Stop.REQUESTED,
    runners_pb2.CANCEL_REASON_TIMEOUT: Stop.TIMEOUT,
}

Call = Any  # grpc.aio.StreamStreamCall, whose types the stubs do not carry over to `write`.


class Refused(Exception):
    """The server will not have this instance; the text says why."""


class StreamEnded(Exception):
    """The stream is over and another may follow; the text says why."""


class Stream:
    """Speaks for an instance over one call."""

    def __init__(self, call: Call, instance: Instance) -> None:
        self._call = call
        self._instance = instance
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._welcomed = asyncio.Event()
        # Whether the server has answered a status: the stream works.
        self.is_proven = False
        self._status_number = 0
        self._status_due = 0.0
        # Capacity and stuck attempts, as the server knows them.
        self._said_room = (0, 0)
        self._last_assign = 0
        self._flight = Flight()
        self._next_reports = 0.0
        self._said_drain = False
        self._goodbye = False
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._reason: Exception | None = None

    async def run(self) -> None:
        """Returns once goodbye was said. Raises Refused or StreamEnded."""
        self._after("answer", HELLO_SECONDS, lambda: self.end("no answer to hello"))
        reader = asyncio.create_task(self._ending(self._read()))
        writer = asyncio.create_task(self._ending(self._write()))
        try:
            await asyncio.wait((reader, writer), return_when=asyncio.FIRST_COMPLETED)
            if self._reason is None:
                # Goodbye was said, or a message could not be written: the reader hears how the stream ends.
                await asyncio.wait((reader,), timeout=CLOSE_SECONDS)
        finally:
            for timer in self._timers.values():
                timer.cancel()
            self._call.cancel()
            for task in (reader, writer):
                task.cancel()
            await asyncio.gather(reader, writer, return_exceptions=True)
        if not self._goodbye:
            raise self._reason or StreamEnded("the server closed the stream")

    def wake(self) -> None:
        """There may be something to say."""
        self._wake.set()

    def say_goodbye(self) -> None:
        """Nothing is held any more: says so and ends the stream."""
        self._goodbye = True
        self._wake.set()

    def end(self, reason: str) -> None:
        """Ends the stream at once."""
        self._fail(StreamEnded(reason))
        self._call.cancel()

    def _fail(self, reason: Exception) -> None:
        self._reason = self._reason or reason

    async def _ending(self, work: Coroutine[Any, Any, None]) -> None:
        """Notes why reading or writing ended."""
        try:
            await work
        except StreamEnded as ended:
            self._fail(ended)
        except asyncio.InvalidStateError:
            # A write to a stream that has ended: the reader knows why.
            pass
        except grpc.aio.AioRpcError as error:
            # A write that meets the end of the stream may hide the server's reason behind "Internal error from Core":
            # then the next stream hears it.
            reason = f"{error.code().name}: {error.details() or 'no details'}"
            self._fail(Refused(reason) if error.code() in REFUSALS else StreamEnded(reason))
        except Exception as error:
            self._fail(error)

    async def _read(self) -> None:
        async for response in self._call:
            # What was on its way when the stream was given up is not heard any more.
            if self._reason is None:
                self._take(response)

    def _take(self, response: runners_pb2.ConnectResponse) -> None:
        held = self._instance.held
        match response.WhichOneof("message"):
            case "welcome":
                self._cancel_timer("answer")
                self._instance.welcomed(response.welcome)
                self._said_room = (held.limit, 0)
                # The first status follows at once: until then the server knows nothing of the process's load.
                self._status_due = self._loop.time()
                self._welcomed.set()
            case "renewed":
                self._renewed(response.renewed.number)
            case "assign":
                # It may have waited here for longer than the lease while the process was stopped.
                self._check_lease()
                if response.assign.settlements:
                    self._settled({AttemptId.of(each.attempt) for each in response.assign.settlements})
                self._last_assign = response.assign.number
                held.take_up(response.assign.assignments)
            case "settled":
                self._settled({AttemptId.of(each.attempt) for each in response.settled.settlements})
            case "cancel":
                self._cancelled(AttemptId.of(response.cancel.attempt), response.cancel.reason)
            case "configure":
                self._instance.configure(response.configure)
            case "stopping":
                self._instance.server_is_down(self._instance.now())
            case _:
                # Of a newer version of the protocol.
                pass
        if self._has_something_to_say():
            self._wake.set()

    def _has_something_to_say(self) -> bool:
        """Most of what arrives is not answered: then the writer sleeps on, whose waking costs as much as some tasks."""
        return bool(self._instance.held.unsent or self._instance.outbox.has_reports or self._is_status_due)

    @property
    def _is_status_due(self) -> bool:
        return self._room != self._said_room or self._loop.time() >= self._status_due

    @property
    def _room(self) -> tuple[int, int]:
        return self._instance.held.capacity, self._instance.held.stuck

    def _renewed(self, number: int) -> None:
        self.is_proven = True
        self._instance.lease.renewed(number)
        self._cancel_timer("answer")
        if number < self._status_number:
            self._expect_answer()

    def _cancelled(self, attempt: AttemptId, reason: runners_pb2.CancelReason.ValueType) -> None:
        stop = _CANCELS.get(reason, Stop.DROPPED)
        self._instance.held.cancel(attempt, stop)
        if stop is Stop.DROPPED:
            self._settled({attempt})

    def _settled(self, attempts: set[AttemptId]) -> None:
        self._instance.held.settle(attempts)
        self._flight.settled(attempts, self._loop.time())

    async def _write(self) -> None:
        await self._call.write(self._instance.hello())
        await self._welcomed.wait()
        while True:
            self._wake.clear()
            if self._instance.held.draining and not self._said_drain:
                self._said_drain = True
                await self._send(runners_pb2.ConnectRequest(drain=runners_pb2.Drain()))
            await self._send_reports()
            if self._goodbye:
                await self._send(runners_pb2.ConnectRequest(drain=runners_pb2.Drain(goodbye=True)))
                await self._call.done_writing()
                return
            if self._is_status_due:
                await self._send_status()
            await self._wake.wait()

    async def _send(self, message: runners_pb2.ConnectRequest) -> None:
        """Sends a status first when one is due: many reports must not hold up the lease."""
        if self._is_status_due:
            await self._send_status()
        self._check_lease()
        await self._call.write(message)

    async def _send_status(self) -> None:
        self._check_lease()
        self._status_number += 1
        self._said_room = self._room
        self._status_later()
        if "answer" not in self._timers:
            self._expect_answer()
        status = self._instance.status(self._status_number, self._last_assign)
        await self._call.write(runners_pb2.ConnectRequest(status=status))

    def _check_lease(self) -> None:
        if self._instance.give_up_if_expired():
            raise StreamEnded("the lease ran out")

    async def _send_reports(self) -> None:
        """Lines and progress, then outcomes: whatever an attempt said goes before how it ended."""
        instance = self._instance
        instance.held.ended(instance.outbox.take_ended())
        # Taken before the lines: what ends while these are sent has others.
        unsent = instance.held.take_unsent() if self._may_send_outcomes() else []
        if instance.outbox.has_reports:
            early = self._next_reports - self._loop.time()
            if unsent or early <= 0:
                await self._send_lines_and_progress()
            else:
                self._after("reports", early, self.wake)
        for attempts, message in messages.outcomes(unsent):
            self._flight.sent(attempts)
            await self._send(message)

    async def _send_lines_and_progress(self) -> None:
        instance = self._instance
        self._next_reports = self._loop.time() + REPORT_SECONDS
        lines, progress = instance.outbox.take_reports()
        lines = [line for line in lines if line.attempt in instance.held]
        progress = {attempt: report for attempt, report in progress.items() if attempt in instance.held}
        sent = 0
        try:
            for part, message in messages.logs(lines):
                await self._send(message)
                sent += len(part)
            for message in messages.progress(progress):
                await self._send(message)
            progress = {}
        finally:
            if sent < len(lines) or progress:
                instance.outbox.put_back(lines[sent:], progress)

    def _may_send_outcomes(self) -> bool:
        held, now = self._instance.held, self._loop.time()
        if not held.unsent:
            return False
        if self._flight.may_follow(held.unsent, held.capacity, held.is_busy, now):
            return True
        # Otherwise it is a settlement that makes way.
        if wait := self._flight.gathers_for(now):
            self._after("gather", wait, self.wake)
        return False

    @property
    def _status_seconds(self) -> float:
        return self._instance.lease_seconds / 3

    def _status_later(self) -> None:
        self._status_due = self._loop.time() + self._status_seconds
        self._after("status", self._status_seconds, self._status_is_due)

    def _status_is_due(self) -> None:
        # The writer may be stuck in a write that the other side does not take: that is silence too.
        if "answer" not in self._timers:
            self._expect_answer()
        self.wake()

    def _expect_answer(self) -> None:
        patience = max(self._status_seconds, MIN_PATIENCE_SECONDS)
        self._after("answer", patience, lambda: self.end("the server is silent"))

    def _after(self, name: str, seconds: float, action: Callable[[], None]) -> None:
        """Sets the timer of this name, in place of the one that was set before."""
        self._cancel_timer(name)

        def fire() -> None:
            self._timers.pop(name, None)
            action()

        self._timers[name] = self._loop.call_later(seconds, fire)

    def _cancel_timer(self, name: str) -> None:
        timer = self._timers.pop(name, None)
        if timer is not None:
            timer.cancel()

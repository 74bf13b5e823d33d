"""RunnerService: the stream of one process. This file translates; the rules are in the engine.

One task reads the stream, one applies reports in order, and the method itself is the only writer. Renewing the lease
never waits for the store: statuses are answered by the reader, reports wait in a bounded queue.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from typing import Any, Final

from google.protobuf.duration_pb2 import Duration

from agent_orchestration import free_json
from agent_orchestration.v1 import common_pb2, runners_pb2, runners_pb2_grpc
from ao_server.api import calls, messages
from ao_server.api.validation import validate
from ao_server.engine import attach, intake, reports
from ao_server.engine.clock import Clock
from ao_server.engine.fleet import Fleet
from ao_server.engine.sessions import (
    Assign,
    Attempt,
    InstanceKey,
    Load,
    Renewed,
    Session,
    Settled,
    Stopping,
    Supersede,
    ToRunner,
)
from ao_server.engine.transitions import Failure
from ao_server.errors import DeadlineExceeded, Invalid, Problem, Unavailable
from ao_server.store.writer import Writer

HELLO_SECONDS: Final = 10.0
PROTOCOL_VERSION: Final = 1
MAX_RESULT_BYTES: Final = 1024 * 1024
MAX_CODE_BYTES: Final = 100
MAX_ERROR_BYTES: Final = 4 * 1024
MAX_PROGRESS_BYTES: Final = 1_000
MAX_LINE_BYTES: Final = 8 * 1024
CUT: Final = " [cut]"
WAITING_REPORTS: Final = 1_000
ANY_TYPE: Final = "*"


class RunnerServicer(runners_pb2_grpc.RunnerServiceServicer):
    """Serves the streams of all processes."""

    def __init__(self, fleet: Fleet, writer: Writer, clock: Clock, lease: float) -> None:
        self._fleet = fleet
        self._writer = writer
        self._clock = clock
        self._lease = lease

    async def Connect(
        self, request_iterator: AsyncIterator[runners_pb2.ConnectRequest], context: Any
    ) -> AsyncIterator[runners_pb2.ConnectResponse]:
        """One process, from hello to the end of the stream."""
        stream = _Stream(self._fleet, self._writer, self._clock)
        reader = asyncio.create_task(stream.read(request_iterator))
        reporter = asyncio.create_task(stream.report())
        try:
            session, attached = await self._attach(await stream.hello())
            stream.attached(session)
            yield _welcome(session, attached, self._lease)
            self._fleet.open(session)
            while True:
                message = await session.outbox.get()
                if isinstance(message, Exception):
                    raise message
                for response in _responses(message):
                    yield response
        except _Ended:
            return
        finally:
            if stream.session is not None:
                self._fleet.leave(stream.session)
            for task in (reader, reporter):
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    async def _attach(self, hello: runners_pb2.Hello) -> tuple[Session, attach.Attached]:
        project_id = calls.current().project_id
        if hello.protocol_version not in (0, PROTOCOL_VERSION):
            raise Invalid.field("protocol_version", f"this server speaks version {PROTOCOL_VERSION}")
        if hello.HasField("agent_id"):
            agent_id = hello.agent_id
        elif hello.type and hello.name:
            agent_id = await self._fleet.resolve(
                intake.NewAgent(
                    project_id=project_id,
                    name=hello.name,
                    type=hello.type,
                    configuration=hello.configuration if hello.HasField("configuration") else "{}",
                    environment=hello.environment if hello.HasField("environment") else None,
                )
            )
        else:
            raise Invalid.field("agent_id", "an agent_id, or a type and a name, is needed")
        names = frozenset(each.name for each in hello.task_types)
        key = InstanceKey(project_id, agent_id, hello.instance_id)
        session, attached = await self._fleet.hello(key, None if ANY_TYPE in names else names, _held(hello.held))
        session.load = Load(uptime=_seconds(hello.uptime), at=self._clock.now())
        return session, attached


class _Ended(Exception):
    """The process closed its side of the stream."""


class _Stream:
    """What comes from one process."""

    def __init__(self, fleet: Fleet, writer: Writer, clock: Clock) -> None:
        self.session: Session | None = None
        self._is_attached = asyncio.Event()
        self._fleet = fleet
        self._writer = writer
        self._clock = clock
        self._hello: asyncio.Future[runners_pb2.Hello] = asyncio.get_running_loop().create_future()
        self._reports: asyncio.Queue[runners_pb2.ConnectRequest | None] = asyncio.Queue(WAITING_REPORTS)

    async def hello(self) -> runners_pb2.Hello:
        """The first message."""
        try:
            async with asyncio.timeout(HELLO_SECONDS):
                return await self._hello
        except TimeoutError:
            raise DeadlineExceeded("no hello came") from None

    def attached(self, session: Session) -> None:
        """From now on the stream is this session's."""
        self.session = session
        self._is_attached.set()

    async def read(self, requests: AsyncIterator[runners_pb2.ConnectRequest]) -> None:
        """Reads until the process closes its side; whatever is wrong ends the stream."""
        try:
            async for request in requests:
                validate(request)
                await self._take(request)
            # What was said before the process closed its side still counts.
            await self._reports.put(None)
        except Problem as problem:
            self._end(problem)

    async def report(self) -> None:
        """Applies reports one after the other; one that cannot be written ends the stream, and the process, once
        reconnected, sends its outcomes again.
        """
        while True:
            request = await self._reports.get()
            if request is None:
                self._end(_Ended())
                return
            try:
                await self._apply(request)
            except Problem as problem:
                self._end(problem)
                return
            except Exception:
                self._end(Problem("a report could not be written"))
                raise

    async def _take(self, request: runners_pb2.ConnectRequest) -> None:
        kind = request.WhichOneof("message")
        if kind is None:
            raise Invalid("an empty message")
        if (kind == "hello") == self._hello.done():
            raise Invalid("hello comes first, and once")
        if kind == "hello":
            self._hello.set_result(request.hello)
            await self._is_attached.wait()
        elif kind == "status":
            await self._status(request.status)
        elif self._reports.full():
            raise Unavailable("too many reports are waiting")
        else:
            self._reports.put_nowait(request)

    async def _status(self, status: runners_pb2.Status) -> None:
        session = self.session
        assert session is not None
        session.load = Load(status.memory_usage, status.cpu_usage, _seconds(status.uptime), self._clock.now())
        await self._fleet.status(session, status.number, _held(status.held), status.last_assign, status.capacity)

    async def _apply(self, request: runners_pb2.ConnectRequest) -> None:
        session = self.session
        assert session is not None
        match request.WhichOneof("message"):
            case "progress":
                decoded = [_progress(each) for each in request.progress.reports]
                await self._writer.submit(reports.progress(session.key, decoded))
            case "log":
                lines = [_log(each) for each in request.log.reports]
                await self._writer.submit(reports.log(session.key, lines))
            case "outcomes":
                outcomes = [_outcome(each) for each in request.outcomes.outcomes]
                # Told from within the commit's delivery: slots that it frees are filled only behind it on the stream.
                settle = reports.settle(session.key, outcomes, lambda settled: session.push(Settled(settled)))
                await self._writer.submit(settle)
            case _:
                if request.drain.goodbye:
                    await self._fleet.goodbye(session)
                else:
                    session.capacity = 0

    def _end(self, reason: Problem | _Ended) -> None:
        if self.session is not None:
            self.session.end(reason)
        elif not self._hello.done():
            self._hello.set_exception(reason)


def _welcome(session: Session, attached: attach.Attached, lease: float) -> runners_pb2.ConnectResponse:
    response = runners_pb2.ConnectResponse()
    welcome = response.welcome
    welcome.session_id = session.id
    welcome.agent_id = attached.agent.id
    welcome.lease.FromMicroseconds(round(lease * 1e6))
    welcome.protocol_version = PROTOCOL_VERSION
    welcome.configure.configuration = attached.agent.configuration
    welcome.configure.max_concurrent_tasks = session.limit
    return response


def _responses(message: ToRunner) -> Iterable[runners_pb2.ConnectResponse]:
    match message:
        case Assign():
            assignments = [_assignment(each) for each in message.assignments]
            yield runners_pb2.ConnectResponse(assign=runners_pb2.Assign(number=message.number, assignments=assignments))
        case Supersede():
            for attempt in message.attempts:
                cancel = runners_pb2.Cancel(attempt=_attempt(attempt), reason=runners_pb2.CANCEL_REASON_SUPERSEDED)
                yield runners_pb2.ConnectResponse(cancel=cancel)
        case Settled():
            settlements = [
                runners_pb2.Settlement(attempt=_attempt(attempt), accepted=accepted)
                for attempt, accepted in message.settlements
            ]
            yield runners_pb2.ConnectResponse(settled=runners_pb2.Settled(settlements=settlements))
        case Renewed():
            yield runners_pb2.ConnectResponse(renewed=runners_pb2.Renewed(number=message.number))
        case Stopping():
            yield runners_pb2.ConnectResponse(stopping=runners_pb2.Stopping())


def _assignment(each: Any) -> runners_pb2.Assignment:
    assignment = runners_pb2.Assignment(attempt=_attempt(each.attempt), type=each.type, payload=each.payload)
    assignment.timeout.FromMicroseconds(round(each.timeout * 1e6))
    return assignment


def _attempt(attempt: Attempt) -> runners_pb2.Attempt:
    return runners_pb2.Attempt(task_id=attempt.task_id, number=attempt.number)


def _held(attempts: Iterable[runners_pb2.Attempt]) -> dict[str, int]:
    return {attempt.task_id: attempt.number for attempt in attempts}


def _progress(report: runners_pb2.ProgressReport) -> reports.ProgressReport:
    message = _storable(report.message, MAX_PROGRESS_BYTES) if report.HasField("message") else None
    return reports.ProgressReport(_of(report.attempt), report.progress, message)


def _log(report: runners_pb2.LogReport) -> reports.LogReport:
    level = report.level or common_pb2.LOG_LEVEL_INFO
    age = max(0, report.age.ToMicroseconds())
    return reports.LogReport(
        _of(report.attempt),
        messages.enum_name(common_pb2.LogLevel, level),
        _storable(report.message, MAX_LINE_BYTES),
        age,
    )


def _outcome(outcome: runners_pb2.Outcome) -> reports.Outcome:
    attempt = _of(outcome.attempt)
    match outcome.WhichOneof("outcome"):
        case "result":
            return reports.Outcome(attempt, _result(outcome.result))
        case "failure":
            code = _storable(outcome.failure.code, MAX_CODE_BYTES) or "task_error"
            message = _storable(outcome.failure.message, MAX_ERROR_BYTES)
            return reports.Outcome(attempt, Failure(code, message))
        case "cancelled":
            return reports.Outcome(attempt, reports.CancelledByAgent())
        case "handed_back":
            return reports.Outcome(attempt, reports.HandedBack())
        case _:
            return reports.Outcome(attempt, Failure("invalid_result", "the agent reported an empty outcome"))


def _result(text: str) -> reports.Completed | Failure:
    if len(text.encode()) > MAX_RESULT_BYTES:
        return Failure("result_too_large", f"the result is longer than {MAX_RESULT_BYTES} bytes of JSON")
    wrong = free_json.check(text)
    return reports.Completed(text) if wrong is None else Failure("invalid_result", f"the result {wrong}")


def _of(attempt: runners_pb2.Attempt) -> Attempt:
    return Attempt(attempt.task_id, attempt.number)


def _storable(text: str, limit: int) -> str:
    """Text for people, in at most `limit` bytes; U+0000, which PostgreSQL cannot hold, becomes U+FFFD."""
    text = text.replace("\0", "\N{REPLACEMENT CHARACTER}")
    encoded = text.encode()
    if len(encoded) <= limit:
        return text
    return encoded[: limit - len(CUT)].decode(errors="ignore") + CUT


def _seconds(duration: Duration) -> float:
    return duration.ToMicroseconds() / 1e6

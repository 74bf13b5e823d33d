"""RunnerService: the stream of one process. The rules are in the engine.

One task reads the stream, and the method itself is the only writer. Renewing the lease never waits for the store:
statuses are answered by the reader; reports, up to a bound, wait with the writer. Most streams are idle most of the
time, so what a stream holds while nothing is said is kept small.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any, Final

from google.protobuf.message import DecodeError

from agent_orchestration.v1 import runners_pb2, runners_pb2_grpc
from ao_server.api import calls, runner_messages
from ao_server.api.runner_messages import PROTOCOL_VERSION
from ao_server.api.validation import validate
from ao_server.engine import intake, reports
from ao_server.engine.access import Principal
from ao_server.engine.attach import NOT_ITS_AGENT
from ao_server.engine.fleet import Fleet
from ao_server.engine.sessions import InstanceKey, Load, Session, Settled
from ao_server.errors import DeadlineExceeded, Forbidden, Invalid, NotFound, Problem, Unavailable
from ao_server.store import agents
from ao_server.store.changes import Operation
from ao_server.store.reader import Reader
from ao_server.store.writer import Writer

HELLO_SECONDS: Final = 10.0
WAITING_REPORTS: Final = 1_000
LAST_WORDS_SECONDS: Final = 30.0


class RunnerServicer(runners_pb2_grpc.RunnerServiceServicer):
    """Serves the streams of all processes."""

    def __init__(self, fleet: Fleet, writer: Writer, reader: Reader, random: Callable[[], float], lease: float) -> None:
        """`random`, from 0 to 1, spreads retries. `lease` in seconds."""
        self._fleet = fleet
        self._writer = writer
        self._reader = reader
        self._random = random
        self._lease = lease

    async def Connect(
        self, request_iterator: AsyncIterator[runners_pb2.ConnectRequest], context: Any
    ) -> AsyncIterator[runners_pb2.ConnectResponse]:
        """One process, from hello to the end of the stream."""
        stream = _Stream(self._fleet, self._writer, self._random)
        stream.start(request_iterator)
        try:
            yield await self._attach(stream, await stream.hello())
            session = stream.session
            assert session is not None
            self._fleet.open(session)
            while True:
                while session.outbox:
                    for response in runner_messages.responses(session.outbox):
                        yield response
                        del response
                await session.outbox.filled()
        except _Ended:
            return
        finally:
            if stream.session is not None:
                self._fleet.leave(stream.session)
            await stream.close()

    async def _attach(self, stream: "_Stream", hello: runners_pb2.Hello) -> runners_pb2.ConnectResponse:
        """The session of a new stream; what to answer the hello."""
        principal = calls.current().principal
        project_id = principal.project_id
        if hello.protocol_version not in (0, PROTOCOL_VERSION):
            raise Invalid.field("protocol_version", f"this server speaks version {PROTOCOL_VERSION}")
        if hello.HasField("agent_id"):
            agent_id = hello.agent_id
            calls.concerns(agent_id)
            await self._check_agent(principal, agent_id)
        elif hello.type and hello.name:
            if principal.agent_type not in (None, hello.type):
                raise Forbidden(NOT_ITS_AGENT)
            agent_id = await self._fleet.resolve(
                intake.NewAgent(
                    project_id=project_id,
                    name=hello.name,
                    type=hello.type,
                    configuration=hello.configuration if hello.HasField("configuration") else "{}",
                    environment=hello.environment if hello.HasField("environment") else None,
                ),
                only=principal.agent_id,
            )
        else:
            raise Invalid.field("agent_id", "an agent_id, or a type and a name, is needed")
        calls.concerns(agent_id)
        key = InstanceKey(project_id, agent_id, hello.instance_id)
        task_types = [runner_messages.task_type(each) for each in hello.task_types]
        session, attached = await self._fleet.hello(key, task_types, runner_messages.held(hello.held))
        session.load = Load(uptime=runner_messages.uptime(hello.uptime))
        stream.attached(session)
        return runner_messages.welcome(session, attached, self._lease)

    async def _check_agent(self, principal: Principal, agent_id: str) -> None:
        """Before anything is done in the agent's name. NotFound, or Forbidden when the credential is for others."""
        if principal.agent_id not in (None, agent_id):
            raise Forbidden(NOT_ITS_AGENT)
        if principal.agent_type is None:
            return
        agent = await agents.get(self._reader, principal.project_id, agent_id)
        if agent is None:
            raise NotFound("there is no such agent")
        if agent.type != principal.agent_type:
            raise Forbidden(NOT_ITS_AGENT)


class _Ended(Exception):
    """The process closed its side of the stream."""


class _Stream:
    """What comes from one process."""

    __slots__ = (
        "_all_written",
        "_attaching",
        "_fleet",
        "_hello",
        "_is_greeted",
        "_random",
        "_reading",
        "_unwritten",
        "_writer",
        "session",
    )

    def __init__(self, fleet: Fleet, writer: Writer, random: Callable[[], float]) -> None:
        self.session: Session | None = None
        self._fleet = fleet
        self._writer = writer
        self._random = random
        self._is_greeted = False
        # Of the time before the stream is attached; dropped then.
        loop = asyncio.get_running_loop()
        self._hello: asyncio.Future[runners_pb2.Hello] | None = loop.create_future()
        self._attaching: asyncio.Future[None] | None = loop.create_future()
        self._reading: asyncio.Task[None] | None = None
        # Reports that are not written yet, and what is told once there are none.
        self._unwritten = 0
        self._all_written: asyncio.Future[None] | None = None

    def start(self, requests: AsyncIterator[runners_pb2.ConnectRequest]) -> None:
        """Begins to read."""
        self._reading = asyncio.create_task(self._read(requests))

    async def close(self) -> None:
        """Ends all work for the stream."""
        if self._reading is not None:
            self._reading.cancel()
            with suppress(asyncio.CancelledError):
                await self._reading

    async def hello(self) -> runners_pb2.Hello:
        """The first message."""
        assert self._hello is not None
        try:
            async with asyncio.timeout(HELLO_SECONDS):
                return await self._hello
        except TimeoutError:
            raise DeadlineExceeded("no hello came") from None

    def attached(self, session: Session) -> None:
        """From now on the stream is this session's."""
        self.session = session
        if self._attaching is not None and not self._attaching.done():
            self._attaching.set_result(None)
        self._hello = self._attaching = None

    async def _read(self, requests: AsyncIterator[runners_pb2.ConnectRequest]) -> None:
        """Reads until the process closes its side; whatever is wrong ends the stream."""
        try:
            async for request in requests:
                validate(request)
                await self._take(request)
                del request
            # What was said before the process closed its side still counts.
            if self._unwritten:
                self._all_written = asyncio.get_running_loop().create_future()
                async with asyncio.timeout(LAST_WORDS_SECONDS):
                    await self._all_written
            self._end(_Ended())
        except Problem as problem:
            self._end(problem)
        except DecodeError:
            self._end(Invalid("a message is not a ConnectRequest"))
        except TimeoutError:
            self._end(DeadlineExceeded("what was reported last could not be written in time"))
        except Exception:
            # Unread, the stream would stay open for as long as its lease.
            self._end(Problem("a message could not be taken"))
            raise

    async def _take(self, request: runners_pb2.ConnectRequest) -> None:
        kind = request.WhichOneof("message")
        if kind is None:
            raise Invalid("an empty message")
        if (kind == "hello") == self._is_greeted:
            raise Invalid("hello comes first, and once")
        if kind == "hello":
            assert self._hello is not None and self._attaching is not None
            self._is_greeted = True
            self._hello.set_result(request.hello)
            await self._attaching
        elif kind == "status":
            await self._status(request.status)
        elif kind == "drain":
            await self._drain(request.drain)
        else:
            self._report(request)

    async def _status(self, status: runners_pb2.Status) -> None:
        session = self.session
        assert session is not None
        memory, cpu = runner_messages.usage(status.memory_usage), runner_messages.usage(status.cpu_usage)
        session.load = Load(memory, cpu, runner_messages.uptime(status.uptime), status.stuck)
        await self._fleet.status(
            session, status.number, runner_messages.held(status.held), status.last_assign, status.capacity
        )

    async def _drain(self, drain: runners_pb2.Drain) -> None:
        session = self.session
        assert session is not None
        if drain.goodbye:
            await self._fleet.goodbye(session)
        else:
            session.capacity = 0

    def _report(self, request: runners_pb2.ConnectRequest) -> None:
        """Queues a report. They are applied in order; one that cannot be written ends the stream, and the process, once
        reconnected, sends its outcomes again.
        """
        if self._unwritten >= WAITING_REPORTS:
            raise Unavailable("too many reports are waiting")
        self._writer.write(self._operation(request)).add_done_callback(self._written)
        self._unwritten += 1

    def _operation(self, request: runners_pb2.ConnectRequest) -> Operation[Any]:
        session = self.session
        assert session is not None
        match request.WhichOneof("message"):
            case "progress":
                decoded = [runner_messages.progress(each) for each in request.progress.reports]
                return reports.progress(session.key, decoded)
            case "log":
                return reports.log(session.key, [runner_messages.log(each) for each in request.log.reports])
            case _:
                outcomes = [runner_messages.outcome(each) for each in request.outcomes.outcomes]
                # Told from within the commit's delivery: slots that it frees are filled only behind it on the stream.
                return reports.settle(
                    session.key, outcomes, self._random, lambda settled: session.push(Settled(settled))
                )

    def _written(self, future: asyncio.Future[Any]) -> None:
        self._unwritten -= 1
        if not self._unwritten and self._all_written is not None and not self._all_written.done():
            self._all_written.set_result(None)
        error = None if future.cancelled() else future.exception()
        if error is not None:
            self._end(error if isinstance(error, Problem) else Problem("a report could not be written"))

    def _end(self, reason: Problem | _Ended) -> None:
        if self.session is not None:
            self.session.end(reason)
        elif self._hello is not None and not self._hello.done():
            self._hello.set_exception(reason)

"""A scripted server: RunnerService on a real socket, one step at a time, and real runner processes against it."""

import asyncio
import os
import signal
import sys
import textwrap
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import grpc
import psutil

from agent_orchestration.v1 import runners_pb2, runners_pb2_grpc

KEY: Final = "test-key-1234"
PATIENCE: Final = 20.0
AGENT_ID: Final = "agent_of_the_test"


class Stream:
    """One stream as the server sees it. Statuses are answered by themselves while `answers` is set."""

    def __init__(self, metadata: dict[str, str]) -> None:
        self.metadata = metadata
        self.answers = True
        # Everything but statuses, in order.
        self.heard: asyncio.Queue[runners_pb2.ConnectRequest] = asyncio.Queue()
        self.statuses: list[runners_pb2.Status] = []
        self.closed = asyncio.Event()
        self._reads = asyncio.Event()
        self._reads.set()
        self._changed = asyncio.Event()
        self._to_send: asyncio.Queue[runners_pb2.ConnectResponse | grpc.StatusCode | None] = asyncio.Queue()
        self._assigns = 0

    async def serve(self, requests: AsyncIterator[runners_pb2.ConnectRequest], context: Any) -> AsyncIterator[Any]:
        reader = asyncio.create_task(self._read(requests))
        try:
            while (message := await self._to_send.get()) is not None:
                if isinstance(message, grpc.StatusCode):
                    await context.abort(message, "the test says so")
                yield message
        finally:
            reader.cancel()
            self.closed.set()

    async def _read(self, requests: AsyncIterator[runners_pb2.ConnectRequest]) -> None:
        async for request in requests:
            if request.HasField("status"):
                self.statuses.append(request.status)
                if self.answers:
                    self.send(renewed=runners_pb2.Renewed(number=request.status.number))
            else:
                self.heard.put_nowait(request)
            self._changed.set()
            await self._reads.wait()
        self._to_send.put_nowait(None)

    async def hear(self) -> runners_pb2.ConnectRequest:
        """The next message that is not a status."""
        return await asyncio.wait_for(self.heard.get(), PATIENCE)

    async def hello(self, lease: float = 15.0, limit: int = 10) -> runners_pb2.Hello:
        """Hears hello and welcomes."""
        message = await self.hear()
        assert message.HasField("hello")
        welcome = runners_pb2.Welcome(session_id="session", agent_id=AGENT_ID, protocol_version=1)
        welcome.lease.FromMicroseconds(round(lease * 1e6))
        welcome.configure.configuration = "{}"
        welcome.configure.max_concurrent_tasks = limit
        self.send(welcome=welcome)
        return message.hello

    async def outcomes(self, count: int = 1) -> list[runners_pb2.Outcome]:
        """The next outcomes; lines and progress in between are passed over."""
        found: list[runners_pb2.Outcome] = []
        while len(found) < count:
            found += (await self.hear()).outcomes.outcomes
        return found

    async def status(self, matches: Callable[[runners_pb2.Status], bool]) -> runners_pb2.Status:
        """Waits for a status that matches."""
        async with asyncio.timeout(PATIENCE):
            while True:
                for status in self.statuses:
                    if matches(status):
                        return status
                self._changed.clear()
                await self._changed.wait()

    def assign(self, type: str, payload: str = "{}", *, task_id: str | None = None, number: int = 1) -> None:
        """Gives out an attempt."""
        self._assigns += 1
        assignment = runners_pb2.Assignment(type=type, payload=payload)
        assignment.attempt.task_id = task_id or f"task_{self._assigns}"
        assignment.attempt.number = number
        assignment.timeout.FromSeconds(3600)
        self.send(assign=runners_pb2.Assign(number=self._assigns, assignments=[assignment]))

    def settle(self, *outcomes: runners_pb2.Outcome) -> None:
        settlements = [runners_pb2.Settlement(attempt=outcome.attempt, accepted=True) for outcome in outcomes]
        self.send(settled=runners_pb2.Settled(settlements=settlements))

    def cancel(self, task_id: str, reason: runners_pb2.CancelReason.ValueType) -> None:
        attempt = runners_pb2.Attempt(task_id=task_id, number=1)
        self.send(cancel=runners_pb2.Cancel(attempt=attempt, reason=reason))

    def send(self, **message: Any) -> None:
        self._to_send.put_nowait(runners_pb2.ConnectResponse(**message))

    def stop_reading(self) -> None:
        """From here on nothing is taken in any more: what the runner writes piles up."""
        self._reads.clear()

    def end(self, code: grpc.StatusCode | None = None) -> None:
        """Ends the stream, with an error if there is one."""
        self._to_send.put_nowait(code)


class Peer(runners_pb2_grpc.RunnerServiceServicer):
    """The server."""

    def __init__(self) -> None:
        self.port = 0
        self._streams: asyncio.Queue[Stream] = asyncio.Queue()
        self._server: grpc.aio.Server | None = None

    async def start(self) -> None:
        """Listens, on the port of last time if there was one."""
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        runners_pb2_grpc.add_RunnerServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self._server.start()

    async def stop(self) -> None:
        """Cuts every stream and refuses from here on."""
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    async def stream(self) -> Stream:
        """The next stream that is opened."""
        return await asyncio.wait_for(self._streams.get(), PATIENCE)

    async def Connect(self, request_iterator: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        metadata = {str(key): str(value) for key, value in context.invocation_metadata()}
        stream = Stream(metadata)
        self._streams.put_nowait(stream)
        async for message in stream.serve(request_iterator, context):
            yield message


class Runner:
    """A real runner process over a file of agents."""

    def __init__(self, process: asyncio.subprocess.Process, errors: Path) -> None:
        self.process = process
        self._errors = errors

    async def line(self) -> str:
        """The next line that agent code printed."""
        assert self.process.stdout is not None
        return (await asyncio.wait_for(self.process.stdout.readline(), PATIENCE)).decode().strip()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def stop_still(self) -> None:
        """SIGSTOP, and not before it has taken effect: a thread that runs goes on for a moment."""
        self.process.send_signal(signal.SIGSTOP)
        while psutil.Process(self.process.pid).status() != psutil.STATUS_STOPPED:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.005)

    async def ended(self) -> int:
        """Its exit code."""
        return await asyncio.wait_for(self.process.wait(), PATIENCE)

    @property
    def errors(self) -> str:
        return self._errors.read_text()


def running(folder: Path, code: str, server: str, *options: str) -> AbstractAsyncContextManager[Runner]:
    """`ao runner` over this code; killed at the end if it still runs."""
    file = _written(folder, code)
    return _started(folder, server, "-P", "-m", "agent_orchestration.cli", "runner", str(file), *options)


def script(folder: Path, code: str, server: str) -> AbstractAsyncContextManager[Runner]:
    """The code run by itself; killed at the end if it still runs."""
    return _started(folder, server, str(_written(folder, code)))


def _written(folder: Path, code: str) -> Path:
    file = folder / "agents_of_test.py"
    file.write_text(textwrap.dedent(code))
    return file


@asynccontextmanager
async def _started(folder: Path, server: str, *arguments: str) -> AsyncGenerator[Runner, None]:
    errors = folder / "errors.txt"
    environment = {
        **os.environ,
        "AGENT_ORCHESTRATION_SERVER": f"{server}\n",
        "AGENT_ORCHESTRATION_API_KEY": f" {KEY}\r\n",
        "PYTHONUNBUFFERED": "1",
    }
    with errors.open("wb") as error_file:
        process = await asyncio.create_subprocess_exec(
            sys.executable, *arguments, stdout=asyncio.subprocess.PIPE, stderr=error_file, env=environment
        )
    try:
        yield Runner(process, errors)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()

"""`python -m agent_runner.child NUMBER FILE`: runs isolated functions of a file, one task at a time.

NUMBER is the socket to the runner that started it. The file is imported anew, so that its functions register
themselves; what it runs when it is the main program is not run. The process ends, with everything that it started, when
its runner does.
"""

import asyncio
import json
import os
import queue
import select
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from agent_orchestration.v1 import common_pb2, runners_pb2
from agent_runner import aftermath, outcomes
from agent_runner import agent as agents
from agent_runner.calls import AsyncCall, Handler, call, is_async
from agent_runner.frames import PIECE_BYTES, FrameReader, Kind, frame
from agent_runner.source import CannotLoad, Source
from agent_runner.task import AgentInfo, Task

# How often it looks whether its runner lives, where a process that agent code forked there keeps the socket open.
ORPHAN_SECONDS: Final = 2.0


class Channel:
    """The socket to the runner. Written from any thread."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._pid = os.getpid()
        self._lock = threading.RLock()

    def log(self, level: common_pb2.LogLevel.ValueType, text: str, *, even_if_full: bool = False) -> None:
        """Sends a line; waits while the runner has no time for it."""
        kind = Kind.LAST_LOG if even_if_full else Kind.LOG
        self.send(kind, runners_pb2.LogReport(level=level, message=text).SerializeToString())

    def progress(self, percent: float, message: str | None) -> None:
        """Sends a report."""
        self.send(Kind.PROGRESS, runners_pb2.ProgressReport(progress=percent, message=message).SerializeToString())

    def send(self, kind: Kind, body: bytes) -> None:
        """Sends a frame. A process that was forked off has no say."""
        if os.getpid() == self._pid:
            with self._lock:
                self._socket.sendall(frame(kind, body))


class Child:
    """This process. Frames come in a thread; functions run in the main thread, where signals are theirs."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._channel = Channel(connection)
        self._runner = os.getppid()
        self._work: queue.SimpleQueue[tuple[Kind, bytes]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        # Whether the newest task should stop; it may not have begun.
        self._is_cancelled = False
        self._interrupt: Callable[[], None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def serve(self) -> None:
        """Runs one task after the other, until it is ended from outside."""
        threading.Thread(target=self._listen, name="agent_runner", daemon=True).start()
        _, start = self._work.get()
        find = _finder(json.loads(start))
        about: dict[str, str] = {}
        while True:
            kind, body = self._work.get()
            if kind is Kind.AGENT:
                about = json.loads(body)
                continue
            outcome = self._run(runners_pb2.Assignment.FromString(body), about, find)
            for file in (sys.stdout, sys.stderr):
                with suppress(OSError, ValueError, AttributeError):
                    file.flush()
            self._channel.send(Kind.OUTCOME, outcome.SerializeToString())

    def _run(
        self, assignment: runners_pb2.Assignment, about: dict[str, str], find: Callable[[str], Handler]
    ) -> runners_pb2.Outcome:
        try:
            handler = find(assignment.type)
        except CannotLoad as problem:
            return outcomes.failed(outcomes.PROCESS_DIED, f"in the process of the function, {problem}")
        agent = AgentInfo(about["id"], about["name"], about["type"], about["configuration"])
        asynchronous = is_async(handler)
        attempt = assignment.attempt
        task = Task(
            attempt.task_id,
            attempt.number,
            assignment.type,
            assignment.payload,
            agent,
            self._channel,
            is_plain=not asynchronous,
        )
        if not asynchronous:
            self._interruptible_by(task.cancel)
            outcome = call(handler, task, self._channel)
        else:
            outcome = self._run_async(AsyncCall(handler, task, self._channel), task)
            aftermath.reopen_standard_files()
        self._interruptible_by(None)
        return outcome

    def _run_async(self, running: AsyncCall, task: Task) -> runners_pb2.Outcome:
        if self._loop is None or self._loop.is_closed():
            self._loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self._loop)
        loop = self._loop

        def interrupt() -> None:
            task.cancel()
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(running.interrupt)

        self._interruptible_by(interrupt)
        work = loop.create_task(running.run())
        while not work.done():
            # Agent code may stop the loop, or exit in a task that it started on the side.
            with suppress(RuntimeError, SystemExit, KeyboardInterrupt):
                loop.run_until_complete(work)
        if work.cancelled():
            return outcomes.raised(asyncio.CancelledError("cancelled by other code before it began"))
        return work.result()

    def _interruptible_by(self, interrupt: Callable[[], None] | None) -> None:
        with self._lock:
            self._interrupt = interrupt
            if interrupt is not None and self._is_cancelled:
                interrupt()

    def _listen(self) -> None:
        """In a thread of its own. Ends the process when the runner has ended, or the socket is no good."""
        reader = FrameReader()
        try:
            while data := self._receive():
                for kind, body in reader.feed(data):
                    if kind is Kind.CANCEL:
                        self._cancel()
                    else:
                        self._is_cancelled = False
                        self._work.put((kind, body))
        except Exception:
            traceback.print_exc()
        finally:
            os.killpg(os.getpid(), signal.SIGKILL)

    def _receive(self) -> bytes:
        while os.getppid() == self._runner:
            ready, _, _ = select.select([self._socket], [], [], ORPHAN_SECONDS)
            if ready:
                return self._socket.recv(PIECE_BYTES)
        return b""

    def _cancel(self) -> None:
        with self._lock:
            self._is_cancelled = True
            if self._interrupt is not None:
                self._interrupt()


def _finder(start: dict[str, Any]) -> Callable[[str], Handler]:
    """Imports what it should, and finds functions by type of task. It raises CannotLoad when it cannot."""
    sys.path[:] = start["path"]
    source = Source(start["file"], start["module"])
    problem: CannotLoad | None = None
    try:
        source.load()
    except CannotLoad as error:
        problem = error

    def find(task_type: str) -> Handler:
        if problem is not None:
            raise problem
        handler = agents.isolated(start["name"], start["type"], task_type)
        if handler is None:
            raise CannotLoad(f"{source.file} registers no isolated function for {task_type!r} when it is imported")
        return handler

    return find


if __name__ == "__main__":
    Child(socket.socket(fileno=int(sys.argv[1]))).serve()

"""Isolated functions: the child processes in which they run, one for each slot, started when needed and used again."""

import json
import logging
import selectors
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

from agent_orchestration.v1 import common_pb2, runners_pb2
from agent_runner import outcomes
from agent_runner.frames import PIECE_BYTES, BadFrame, FrameReader, Kind, frame
from agent_runner.group import Group, how_it_ended
from agent_runner.lines import CHUNK_BYTES, Output, RawLine
from agent_runner.source import Source
from agent_runner.task import MAX_LINE_BYTES, AgentInfo, Reporter

log = logging.getLogger("agent_runner")

END_SECONDS: Final = 1.0
_FOLDER: Final = str(Path.cwd())


class Children:
    """The children of one agent. From any thread."""

    def __init__(self, agent_name: str, agent_type: str) -> None:
        self._agent = (agent_name, agent_type)
        self._lock = threading.Lock()
        self._limit = 0
        # Those that wait for work, the one that waited longest first.
        self._idle: list[Child] = []
        self._busy = 0

    def resize(self, limit: int) -> None:
        """No more than this many from here on; those that run a function may end it."""
        self._limit = limit
        self._end_surplus()

    def work(
        self, source: Source, assignment: runners_pb2.Assignment, agent: AgentInfo, reporter: Reporter
    ) -> "IsolatedWork":
        """One attempt of a function that importing `source` registers."""
        return IsolatedWork(self, source, assignment, agent, reporter)

    def take(self, source: Source) -> "Child":
        """A child that has, or will have, imported the source. OSError when it cannot be started."""
        with self._lock:
            fitting = [child for child in self._idle if child.source == source]
            self._busy += 1
            for child in fitting:
                self._idle.remove(child)
                if child.is_alive():
                    return child
                child.end()
        self._end_surplus()
        try:
            return Child(source, self._agent)
        except BaseException:
            self.lost()
            raise

    def give_back(self, child: "Child") -> None:
        """It waits for more work."""
        with self._lock:
            self._busy -= 1
            self._idle.append(child)
        self._end_surplus()

    def lost(self) -> None:
        """One that was taken will not come back."""
        with self._lock:
            self._busy -= 1

    def close(self) -> None:
        """Ends those that wait, and the others when they are given back."""
        self.resize(0)

    def _end_surplus(self) -> None:
        with self._lock:
            surplus = max(0, min(len(self._idle), len(self._idle) + self._busy - self._limit))
            ending, self._idle = self._idle[:surplus], self._idle[surplus:]
        if ending:
            # In a thread: nobody here may wait for them.
            threading.Thread(target=lambda: [child.end() for child in ending], daemon=True).start()


class Child:
    """One child process."""

    def __init__(self, source: Source, agent: tuple[str, str]) -> None:
        """Starts it. OSError when that is not possible."""
        self.source = source
        self.socket, theirs = socket.socketpair()
        with theirs:
            number = theirs.fileno()
            # With -P, and with the path that it is told, it imports what this process would.
            command = [sys.executable, "-P", "-m", "agent_runner.child", str(number), source.file]
            try:
                self.group = Group(command, folder=_FOLDER, pass_fds=(number,))
            except BaseException:
                self.socket.close()
                raise
        self.outputs = (
            Output(self.group.stdout, CHUNK_BYTES, _not_of_a_task),
            Output(self.group.stderr, CHUNK_BYTES, _not_of_a_task),
        )
        for output in self.outputs:
            self.group.hear(output)
        name, type_ = agent
        start = {"file": source.file, "module": source.module, "name": name, "type": type_, "path": sys.path}
        self.unsent = frame(Kind.START, json.dumps(start).encode())
        self.frames = FrameReader()

    def is_alive(self) -> bool:
        """Whether it can take work. What it printed since its last task is not of the next one."""
        for output in self.outputs:
            output.drain()
        return not self.group.has_ended()

    def end(self) -> int | None:
        """Kills it, hears the last of its output, and returns the exit code."""
        code = self.group.end()
        self.socket.close()
        for output in self.outputs:
            output.drain()
            output.close()
        return code


class IsolatedWork:
    """One attempt of an isolated function."""

    def __init__(
        self,
        children: Children,
        source: Source,
        assignment: runners_pb2.Assignment,
        agent: AgentInfo,
        reporter: Reporter,
    ) -> None:
        self._children = children
        self._source = source
        self._assignment = assignment
        self._agent = agent
        self._reporter = reporter
        # Guards what follows; nobody waits under it.
        self._lock = threading.Lock()
        self._child: Child | None = None
        self._has_begun = False
        self._is_told = False
        self._signals: list[signal.Signals] = []
        self._outcome: runners_pb2.Outcome | None = None
        self._is_closed = False
        # Why there will be none, where the exit code does not say it.
        self._wrong: str | None = None

    def run(self) -> runners_pb2.Outcome:
        """Runs it in a child. OSError when none can be started."""
        child = self._children.take(self._source)
        try:
            with self._lock:
                self._child = child
                for number in self._signals:
                    child.group.signal(number)
            self._run_in(child)
        except BaseException:
            self._children.lost()
            child.end()
            raise
        with self._lock:
            self._child = None
        if self._outcome is not None and not self._signals and self._outcome.failure.code != outcomes.PROCESS_DIED:
            self._children.give_back(child)
            return self._outcome
        self._children.lost()
        code = child.end()
        if self._outcome is not None:
            return self._outcome
        how = self._wrong or f"the process of the function ended with {how_it_ended(code)}"
        return outcomes.failed(outcomes.PROCESS_DIED, how)

    def tell(self) -> None:
        """Lets the function see that it should stop."""
        with self._lock:
            self._is_told = True
            if self._child is not None and self._has_begun:
                _send_cancel(self._child)

    def press(self) -> bool:
        """SIGTERM, then SIGKILL."""
        with self._lock:
            if signal.SIGKILL in self._signals:
                return False
            self._signals.append(signal.SIGKILL if self._signals else signal.SIGTERM)
            if self._child is not None:
                self._child.group.signal(self._signals[-1])
            return True

    def _run_in(self, child: Child) -> None:
        for output, level in zip(child.outputs, (common_pb2.LOG_LEVEL_INFO, common_pb2.LOG_LEVEL_WARNING), strict=True):
            output.take = partial(self._printed, level)
        if not self._begin(child):
            return
        child.group.when_ready(child.socket, selectors.EVENT_READ, partial(self._hear, child))
        try:
            while self._outcome is None and not self._is_closed and child.group.wait():
                pass
            # It may have died right after its outcome.
            while self._outcome is None and self._hear(child):
                pass
            if self._outcome is None:
                self._wait_for_the_end(child)
        except BadFrame as bad:
            self._wrong = f"the process of the function spoke out of turn: {bad}"
        child.group.forget(child.socket)
        # Whatever it printed came before its outcome.
        for output in child.outputs:
            output.drain()
            output.take = _not_of_a_task

    def _begin(self, child: Child) -> bool:
        """Hands over the task. It may wait here for a process that is stopped: signals reach that all the same."""
        if self._is_told:
            self._outcome = outcomes.cancelled()
            return False
        about = {"id": self._agent.id, "name": self._agent.name, "type": self._agent.type}
        about["configuration"] = self._agent.stored_configuration
        frames = (
            child.unsent,
            frame(Kind.AGENT, json.dumps(about).encode()),
            frame(Kind.RUN, self._assignment.SerializeToString()),
        )
        try:
            child.socket.sendall(b"".join(frames))
        except OSError:
            return False
        child.unsent = b""
        with self._lock:
            self._has_begun = True
            if self._is_told:
                _send_cancel(child)
        return True

    def _wait_for_the_end(self, child: Child) -> None:
        """Nothing more will be heard of it: how it ended, and what it says of that, is worth a moment."""
        ends = time.monotonic() + END_SECONDS
        while child.group.wait(END_SECONDS):
            if time.monotonic() > ends:
                self._wrong = "the process of the function closed its line to the runner"
                return

    def _hear(self, child: Child) -> bool:
        """Takes what the child says. False when there is nothing to be heard now, or ever."""
        try:
            data = child.socket.recv(PIECE_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self._is_closed = True
            return False
        for kind, body in child.frames.feed(data):
            self._take(kind, body)
        return True

    def _take(self, kind: Kind, body: bytes) -> None:
        match kind:
            case Kind.LOG | Kind.LAST_LOG:
                report = runners_pb2.LogReport.FromString(body)
                self._reporter.log(report.level, report.message, even_if_full=kind is Kind.LAST_LOG)
            case Kind.PROGRESS:
                progress = runners_pb2.ProgressReport.FromString(body)
                message = progress.message if progress.HasField("message") else None
                self._reporter.progress(progress.progress, message)
            case Kind.OUTCOME:
                self._outcome = runners_pb2.Outcome.FromString(body)
            case _:
                raise BadFrame(kind.name)

    def _printed(self, level: common_pb2.LogLevel.ValueType, line: RawLine) -> None:
        self._reporter.log(level, line.text(MAX_LINE_BYTES))


def _send_cancel(child: Child) -> None:
    # When it takes nothing in, it would not look at this either.
    with suppress(OSError):
        child.socket.send(frame(Kind.CANCEL), socket.MSG_DONTWAIT)


def _not_of_a_task(line: RawLine) -> None:
    log.debug("a child process, between tasks: %s", line.text(MAX_LINE_BYTES))

"""A program as an agent: payload on standard input, reports and the result on standard output.

Each line of standard output is `{"progress": 10, "message": ""}`, `{"log": "", "level": ""}`, or else a log line; the
last JSON object that is neither is the result. Lines of standard error are log lines. The exit status decides.
"""

import json
import os
import selectors
import shutil
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn, cast

from agent_orchestration.v1 import common_pb2, runners_pb2
from agent_runner import outcomes
from agent_runner.group import Group, how_it_ended
from agent_runner.lines import CHUNK_BYTES, Output, RawLine
from agent_runner.task import MAX_LINE_BYTES, MAX_PROGRESS_MESSAGE_BYTES, Reporter, Task
from agent_runner.text import cut

LAST_LINES: Final = 5
LAST_LINE_BYTES: Final = 500
_WHITE_SPACE: Final = " \t\r\n"
_LEVELS: Final = {
    "debug": common_pb2.LOG_LEVEL_DEBUG,
    "info": common_pb2.LOG_LEVEL_INFO,
    "warning": common_pb2.LOG_LEVEL_WARNING,
    "error": common_pb2.LOG_LEVEL_ERROR,
}


class CannotStart(Exception):
    """A program that cannot be run; the text says why, in one line."""


@dataclass(frozen=True, slots=True)
class Program:
    """What is started for each task, and where."""

    command: Sequence[str]
    folder: str

    @classmethod
    def found(cls, name: str, arguments: Sequence[str]) -> "Program":
        """Looks for it as a shell does. CannotStart when there is none, or none that may be run."""
        if os.sep in name:
            path = Path(name)
            if not path.exists():
                raise CannotStart(f"{name} does not exist")
            if not path.is_file():
                raise CannotStart(f"{name} is not a file")
            if not os.access(path, os.X_OK):
                raise CannotStart(f"{name} is not executable: chmod +x {name}")
            found = str(path.absolute())
        else:
            on_path = shutil.which(name)
            if on_path is None:
                raise CannotStart(f"{name} is not on the PATH; a file beside is called ./{name}")
            found = str(Path(on_path).absolute())
        return cls((found, *arguments), str(Path.cwd()))


class Run:
    """One run of a program for an attempt."""

    def __init__(self, program: Program, task: Task, payload: str, reporter: Reporter) -> None:
        self._program = program
        self._task = task
        self._reporter = reporter
        # The end of the line is for programs that read lines.
        self._unsent = memoryview(f"{payload}\n".encode())
        self._lock = threading.Lock()
        self._signals: list[signal.Signals] = []
        self._group: Group | None = None
        self._result: RawLine | None = None
        self._errors: deque[str] = deque(maxlen=LAST_LINES)

    def run(self) -> runners_pb2.Outcome:
        """Runs it to its end, and ends whatever it leaves running in its process group."""
        if self._task.cancelled:
            return outcomes.cancelled()
        try:
            group = self._started()
        except OSError as error:
            message = f"{self._program.command[0]} cannot be started: {error.strerror}"
            return outcomes.failed(outcomes.EXIT_STATUS, message)
        outputs = (
            Output(group.stdout, outcomes.MAX_RESULT_BYTES + 1, self._printed),
            Output(group.stderr, CHUNK_BYTES, self._complained),
        )
        try:
            for output in outputs:
                group.hear(output)
            group.when_ready(_pipe(group), selectors.EVENT_WRITE, lambda: self._feed(group))
            while group.wait():
                pass
        finally:
            code = group.end()
            for output in outputs:
                output.drain()
                output.close()
            _pipe(group).close()
        return self._outcome(code)

    def tell(self) -> None:
        """SIGTERM: there is no gentler way to ask."""
        self._signal(signal.SIGTERM)

    def press(self) -> bool:
        """SIGKILL."""
        if signal.SIGKILL in self._signals:
            return False
        self._signal(signal.SIGKILL)
        return True

    def _started(self) -> Group:
        environment = os.environ | {
            "AGENT_ORCHESTRATION_TASK_ID": self._task.id,
            "AGENT_ORCHESTRATION_TASK_TYPE": self._task.type,
            "AGENT_ORCHESTRATION_ATTEMPT": str(self._task.attempt),
            "AGENT_ORCHESTRATION_AGENT_ID": self._task.agent.id,
        }
        program = self._program
        group = Group(program.command, folder=program.folder, environment=environment, stdin=subprocess.PIPE)
        os.set_blocking(_pipe(group).fileno(), False)
        with self._lock:
            self._group = group
            for number in self._signals:
                group.signal(number)
        return group

    def _signal(self, number: signal.Signals) -> None:
        with self._lock:
            self._signals.append(number)
            if self._group is not None:
                self._group.signal(number)

    def _feed(self, group: Group) -> None:
        """Writes some of the payload. A program need not read it."""
        pipe = _pipe(group)
        try:
            self._unsent = self._unsent[os.write(pipe.fileno(), self._unsent) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self._unsent = self._unsent[:0]
        if not self._unsent:
            group.forget(pipe)
            pipe.close()

    def _printed(self, line: RawLine) -> None:
        """A line of standard output."""
        if line.data.lstrip()[:1] != b"{":
            self._log(common_pb2.LOG_LEVEL_INFO, line)
        elif line.size > len(line.data):
            # Too long to be looked at, and for a result too.
            self._take_result(line)
        else:
            said = _object(line.data)
            match said:
                case {"progress": int() | float() as percent, **rest} if rest.keys() <= {"message"}:
                    self._progress(percent, rest.get("message"))
                case {"log": text, **rest} if rest.keys() <= {"level"}:
                    level = _LEVELS.get(str(rest.get("level")).lower(), common_pb2.LOG_LEVEL_INFO)
                    self._reporter.log(level, cut(_shown(text), MAX_LINE_BYTES))
                case None:
                    self._log(common_pb2.LOG_LEVEL_INFO, line)
                case _:
                    self._take_result(line)

    def _complained(self, line: RawLine) -> None:
        """A line of standard error."""
        self._errors.append(line.text(LAST_LINE_BYTES))
        self._log(common_pb2.LOG_LEVEL_WARNING, line)

    def _progress(self, percent: float, message: object) -> None:
        if 0 <= percent <= 100:
            text = None if message is None else cut(_shown(message), MAX_PROGRESS_MESSAGE_BYTES)
            self._reporter.progress(percent, text)
        else:
            text = f"progress must be from 0 to 100, not {percent:g}"
            self._reporter.log(common_pb2.LOG_LEVEL_WARNING, text)

    def _take_result(self, line: RawLine) -> None:
        if self._result is not None:
            self._log(common_pb2.LOG_LEVEL_INFO, self._result)
        self._result = line

    def _log(self, level: common_pb2.LogLevel.ValueType, line: RawLine) -> None:
        self._reporter.log(level, line.text(MAX_LINE_BYTES))

    def _outcome(self, code: int | None) -> runners_pb2.Outcome:
        if code != 0:
            if self._result is not None:
                self._log(common_pb2.LOG_LEVEL_INFO, self._result)
            return outcomes.failed(outcomes.EXIT_STATUS, "\n".join([how_it_ended(code), *self._errors]))
        if self._result is None:
            return runners_pb2.Outcome(result="{}")
        if self._result.size > outcomes.MAX_RESULT_BYTES:
            return outcomes.too_large(self._result.size)
        return runners_pb2.Outcome(result=self._result.data.decode().strip(_WHITE_SPACE))


def _object(data: bytes) -> dict[str, Any] | None:
    """The JSON object; its numbers are not to be trusted. None when it is none."""
    try:
        value = json.loads(data.decode(), parse_int=float, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"{word} is not JSON")


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _pipe(group: Group) -> Any:
    assert group.stdin is not None
    return group.stdin

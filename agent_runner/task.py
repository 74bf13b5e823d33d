"""What an agent's function is given: the task, and the ways to report on it."""

import asyncio
import json
import threading
from collections.abc import Callable, Generator
from functools import cached_property
from numbers import Real
from typing import Any, Final

from agent_orchestration.v1 import common_pb2
from agent_runner.outbox import AttemptId, Line, Outbox
from agent_runner.text import cut, shown

MAX_LINE_BYTES: Final = 8 * 1024
MAX_PROGRESS_MESSAGE_BYTES: Final = 1_000
# The server keeps 10,000 lines of a task: room is left for a traceback and for the line that counts what is missing.
MAX_LINES: Final = 9_700


class TaskCancelled(asyncio.CancelledError):
    """Raised once by `task.progress` and `task.log` in a plain function whose attempt should stop."""


class Queued:
    """The report is queued already; awaiting it lets other work of the loop run."""

    def __await__(self) -> Generator[None, None, None]:
        yield


class TaskLog:
    """Log lines of one attempt, shown with the task and as events. Arguments are put in with `%`, as in `logging`.

    Lines are cut at 8 KiB. When lines come faster than they can be sent, or are too many, some are dropped and a line
    says how many.
    """

    def __init__(self, attempt: AttemptId, outbox: Outbox, interrupt: Callable[[], None]) -> None:
        """`interrupt` raises when the code should stop."""
        self._attempt = attempt
        self._outbox = outbox
        self._interrupt = interrupt
        self._lock = threading.Lock()
        self._written = 0
        self._dropped = 0

    def debug(self, message: object, *arguments: object) -> None:
        """A line for the author."""
        self.write(common_pb2.LOG_LEVEL_DEBUG, _text(message, arguments))

    def info(self, message: object, *arguments: object) -> None:
        """A line for whoever watches."""
        self.write(common_pb2.LOG_LEVEL_INFO, _text(message, arguments))

    def warning(self, message: object, *arguments: object) -> None:
        """A line about something odd."""
        self.write(common_pb2.LOG_LEVEL_WARNING, _text(message, arguments))

    def error(self, message: object, *arguments: object) -> None:
        """A line about something wrong."""
        self.write(common_pb2.LOG_LEVEL_ERROR, _text(message, arguments))

    def write(self, level: common_pb2.LogLevel.ValueType, text: str, *, even_if_full: bool = False) -> None:
        """One line of any level. `even_if_full` is for the few lines that must not be missing."""
        self._interrupt()
        line = Line(self._attempt, level, cut(text, MAX_LINE_BYTES))
        with self._lock:
            if even_if_full or (self._written < MAX_LINES and not self._outbox.is_full):
                self._say_dropped()
                self._written += 1
                self._outbox.log(line)
            else:
                self._dropped += 1

    def close(self) -> None:
        """Nothing more will be written: says what is missing."""
        with self._lock:
            self._say_dropped()

    def _say_dropped(self) -> None:
        if self._dropped:
            text = f"{self._dropped:,} log lines dropped: too many, or written faster than they could be sent"
            self._outbox.log(Line(self._attempt, common_pb2.LOG_LEVEL_WARNING, text))
            self._dropped = 0


class Task:
    """One attempt at a task, as agent code sees it.

    `id`, `type`, `attempt` (1, 2, ...) and `agent_id` say what it is.
    """

    def __init__(
        self,
        attempt: AttemptId,
        type: str,
        payload: str,
        agent_id: str,
        outbox: Outbox,
        *,
        is_plain: bool,
    ) -> None:
        self.id = attempt.task_id
        self.attempt = attempt.number
        self.type = type
        self.agent_id = agent_id
        self.log = TaskLog(attempt, outbox, self._interrupt)
        self._key = attempt
        self._outbox = outbox
        self._payload = payload
        self._cancelled = False
        # An async function is interrupted at an await, a plain one when it reports: once either way.
        self._is_interrupted = not is_plain

    @cached_property
    def payload(self) -> dict[str, Any]:
        """The task's JSON object; integers are exact at any size."""
        return json.loads(self._payload)

    @property
    def cancelled(self) -> bool:
        """True once the attempt should stop. A plain function that runs for long looks here from time to time."""
        return self._cancelled

    def cancel(self) -> None:
        """Tells the code that it should stop."""
        self._cancelled = True

    def progress(self, percent: float, message: str | None = None) -> Queued:
        """Reports progress from 0 to 100. It is queued at once; a plain function need not await it.

        TypeError when `percent` is not a number or `message` not text, ValueError when `percent` is out of range.
        """
        if isinstance(percent, bool) or not isinstance(percent, Real):
            raise TypeError(f"progress must be a number, not {type(percent).__name__}")
        if message is not None and not isinstance(message, str):  # pyright: ignore[reportUnnecessaryIsInstance] - agent code may be untyped
            raise TypeError(f"a progress message must be text, not {type(message).__name__}")
        value = float(percent)
        # Written so that NaN fails too.
        if not 0 <= value <= 100:
            raise ValueError(f"progress must be from 0 to 100, not {value}")
        self._interrupt()
        self._outbox.progress(self._key, value, None if message is None else cut(message, MAX_PROGRESS_MESSAGE_BYTES))
        return Queued()

    def _interrupt(self) -> None:
        if self._cancelled and not self._is_interrupted:
            self._is_interrupted = True
            raise TaskCancelled(f"attempt {self.attempt} at {self.id} should stop")


def _text(message: object, arguments: tuple[object, ...]) -> str:
    text = shown(message)
    if not arguments:
        return text
    try:
        # As in `logging`: a single mapping serves names in the text.
        return text % (arguments[0] if len(arguments) == 1 and isinstance(arguments[0], dict) else arguments)
    except Exception:
        return " ".join([text, *map(shown, arguments)])

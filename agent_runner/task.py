"""What an agent's function is given: the task, and the ways to report on it."""

import math
from collections.abc import Generator
from typing import Any, Final

from agent_orchestration.v1 import common_pb2
from agent_runner.outbox import Attempt, Outbox

MAX_LINE_BYTES: Final = 8 * 1024
MAX_PROGRESS_MESSAGE: Final = 1_000
CUT: Final = " [cut]"


class Queued:
    """The report is queued already; awaiting it lets other work of the loop run."""

    def __await__(self) -> Generator[None, None, None]:
        yield


class TaskLog:
    """Log lines of one attempt. They show in the task and as events. Arguments are put in with `%`, as in `logging`."""

    def __init__(self, attempt: Attempt, outbox: Outbox) -> None:
        self._attempt = attempt
        self._outbox = outbox

    def debug(self, message: object, *arguments: object) -> None:
        """A line for the author."""
        self._write(common_pb2.LOG_LEVEL_DEBUG, message, arguments)

    def info(self, message: object, *arguments: object) -> None:
        """A line for whoever watches."""
        self._write(common_pb2.LOG_LEVEL_INFO, message, arguments)

    def warning(self, message: object, *arguments: object) -> None:
        """A line about something odd."""
        self._write(common_pb2.LOG_LEVEL_WARNING, message, arguments)

    def error(self, message: object, *arguments: object) -> None:
        """A line about something wrong."""
        self._write(common_pb2.LOG_LEVEL_ERROR, message, arguments)

    def _write(self, level: common_pb2.LogLevel.ValueType, message: object, arguments: tuple[object, ...]) -> None:
        text = str(message)
        if arguments:
            try:
                text = text % arguments
            except (TypeError, ValueError):
                text = f"{text} {arguments!r}"
        self._outbox.log(self._attempt, level, cut(text, MAX_LINE_BYTES))


class Task:
    """One attempt at a task, as agent code sees it."""

    def __init__(self, attempt: Attempt, type_: str, payload: dict[str, Any], agent_id: str, outbox: Outbox) -> None:
        self.id = attempt.task_id
        self.attempt = attempt.number
        self.type = type_
        self.payload = payload
        self.agent_id = agent_id
        self.log = TaskLog(attempt, outbox)
        # True once the attempt should stop: a function without awaits looks here from time to time.
        self.cancelled = False
        self._key = attempt
        self._outbox = outbox

    def progress(self, percent: float, message: str | None = None) -> Queued:
        """Reports progress from 0 to 100. It is queued at once; a plain function need not await it.

        TypeError when `percent` is not a number or `message` not text, ValueError when it is out of range.
        """
        if isinstance(percent, bool) or not isinstance(percent, int | float):  # pyright: ignore[reportUnnecessaryIsInstance] - agent code may be untyped
            raise TypeError(f"progress must be a number, not {type(percent).__name__}")
        if math.isnan(percent) or not 0 <= percent <= 100:
            raise ValueError(f"progress must be from 0 to 100, not {percent}")
        if message is not None and not isinstance(message, str):  # pyright: ignore[reportUnnecessaryIsInstance] - agent code may be untyped
            raise TypeError(f"a progress message must be text, not {type(message).__name__}")
        self._outbox.progress(self._key, float(percent), None if message is None else _short(message))
        return Queued()


def cut(text: str, size: int) -> str:
    """The text in at most `size` bytes of UTF-8, marked when it was cut; what UTF-8 cannot hold becomes `?`."""
    encoded = text[:size].encode(errors="replace")
    if len(text) <= size and len(encoded) <= size:
        return encoded.decode()
    return encoded[: size - len(CUT)].decode(errors="ignore") + CUT


def _short(message: str) -> str:
    storable = message.encode(errors="replace").decode()
    if len(storable) <= MAX_PROGRESS_MESSAGE:
        return storable
    return storable[: MAX_PROGRESS_MESSAGE - len(CUT)] + CUT

"""What an agent's function is given: the task, and the ways to report on it."""

import asyncio
import json
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from typing import Any, Final, Protocol

from agent_orchestration.v1 import common_pb2
from agent_runner.errors import TaskCancelled
from agent_runner.text import cut, shown

MAX_LINE_BYTES: Final = 8 * 1024
MAX_PROGRESS_MESSAGE_BYTES: Final = 1_000


class Reporter(Protocol):
    """Where the reports of one attempt go. Called from any thread."""

    def log(self, level: common_pb2.LogLevel.ValueType, text: str, *, even_if_full: bool = False) -> None:
        """Takes a line of at most 8 KiB. `even_if_full` is for the few lines that must not be missing."""
        ...

    def progress(self, percent: float, message: str | None) -> None:
        """Takes a report from 0 to 100."""
        ...


class Queued:
    """The report is queued already; awaiting it lets other work of the loop run."""

    def __await__(self) -> Generator[None, None, None]:
        yield


@dataclass(frozen=True)
class AgentInfo:
    """The agent that a task runs for: its id, name and type, and the settings that are stored of it."""

    id: str
    name: str
    type: str
    # The text of a JSON object.
    stored_configuration: str = "{}"

    @cached_property
    def configuration(self) -> dict[str, Any]:
        """The stored configuration as it was when the attempt began. A copy of the task's own."""
        return json.loads(self.stored_configuration)

    def copy(self) -> "AgentInfo":
        """For one task."""
        return AgentInfo(self.id, self.name, self.type, self.stored_configuration)


class TaskLog:
    """Log lines of one attempt, shown with the task and as events. Arguments are put in with `%`, as in `logging`.

    Lines are cut at 8 KiB. When lines come faster than they can be sent, or are too many, some in the middle are
    dropped and a line says how many.
    """

    def __init__(self, reporter: Reporter, interrupt: Callable[[], None]) -> None:
        """`interrupt` raises when the code should stop."""
        self._reporter = reporter
        self._interrupt = interrupt

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
        self._interrupt()
        self._reporter.log(level, cut(_text(message, arguments), MAX_LINE_BYTES))


class Task:
    """One attempt at a task, as agent code sees it.

    `id`, `type` and `attempt` (1, 2, ...) say what it is, `agent` for whom it runs.
    """

    def __init__(
        self, id: str, attempt: int, type: str, payload: str, agent: AgentInfo, reporter: Reporter, *, is_plain: bool
    ) -> None:
        """`payload` is JSON text. `agent` may be shared by many tasks."""
        self.id = id
        self.attempt = attempt
        self.type = type
        self._agent = agent
        self._reporter = reporter
        self._payload = payload
        self._cancelled = False
        # The threads of a plain function, or else the asyncio task of an async one, that are to be interrupted; and
        # those that were, so that cleaning up can report too.
        self._is_plain = is_plain
        self._own: object = None
        self._interrupted: set[object] = set()

    @property
    def agent_id(self) -> str:
        """The agent's id."""
        return self._agent.id

    @cached_property
    def agent(self) -> AgentInfo:
        """For whom it runs."""
        return self._agent.copy()

    @cached_property
    def log(self) -> TaskLog:
        """Takes log lines."""
        return TaskLog(self._reporter, self._interrupt)

    @cached_property
    def payload(self) -> dict[str, Any]:
        """The task's JSON object; integers are exact at any size."""
        return json.loads(self._payload)

    @property
    def cancelled(self) -> bool:
        """True once the attempt should stop. A plain function that runs for long looks here from time to time."""
        return self._cancelled

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
        self._reporter.progress(value, None if message is None else cut(message, MAX_PROGRESS_MESSAGE_BYTES))
        return Queued()

    # What follows is for the runner.

    def cancel(self) -> None:
        """Tells the code that it should stop."""
        self._cancelled = True

    def began_in(self, work: "asyncio.Task[Any]") -> None:
        """The async function runs in this task of its loop."""
        self._own = work

    def should_interrupt(self, place: object) -> bool:
        """Whether the code in this place, a thread or an asyncio task, is to be interrupted now: once for each."""
        if not self._cancelled or place in self._interrupted:
            return False
        self._interrupted.add(place)
        return True

    def interruption(self) -> TaskCancelled:
        """What the code sees."""
        return TaskCancelled(f"attempt {self.attempt} at {self.id} should stop")

    def _interrupt(self) -> None:
        if not self._cancelled:
            return
        if self._is_plain:
            place: object = threading.get_ident()
        else:
            # Tasks and threads that the function started are stopped by the function, not here.
            place = _current_asyncio_task()
            if place is None or place is not self._own:
                return
        if self.should_interrupt(place):
            raise self.interruption()


def _current_asyncio_task() -> "asyncio.Task[Any] | None":
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


def _text(message: object, arguments: tuple[object, ...]) -> str:
    text = shown(message)
    if not arguments:
        return text
    try:
        # As in `logging`: a single mapping serves names in the text.
        return text % (arguments[0] if len(arguments) == 1 and isinstance(arguments[0], dict) else arguments)
    except Exception:
        return " ".join([text, *map(shown, arguments)])

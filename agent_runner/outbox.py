"""What the threads that run agent code have to say, until the link takes it.

Bounded: beyond the limits log lines are refused (their writer counts them and says so), and progress keeps the last
report of each attempt. Outcomes are always taken: there is at most one for each attempt that is held.
"""

import os
import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from agent_orchestration.v1 import common_pb2, runners_pb2
from agent_runner.doorbell import Doorbell

MAX_LINES: Final = 10_000
MAX_LINE_BYTES: Final = 8 * 1024 * 1024


class AttemptId(NamedTuple):
    """One attempt at a task: the pair that fences every report."""

    task_id: str
    number: int

    @classmethod
    def of(cls, message: runners_pb2.Attempt) -> "AttemptId":
        """From the stream."""
        return cls(message.task_id, message.number)

    def message(self) -> runners_pb2.Attempt:
        """For the stream."""
        return runners_pb2.Attempt(task_id=self.task_id, number=self.number)


@dataclass(slots=True)
class Line:
    """A log line, cut to size. `at` in monotonic seconds."""

    attempt: AttemptId
    level: common_pb2.LogLevel.ValueType
    message: str
    at: float = field(default_factory=time.monotonic)


# Percent and message.
Progress = tuple[float, str | None]
# What became of an attempt; None when nothing is to be said of it.
Ended = tuple[AttemptId, runners_pb2.Outcome | None]


class Outbox:
    """Written from any thread, emptied by the link."""

    def __init__(self, doorbell: Doorbell) -> None:
        self._doorbell = doorbell
        self._pid = os.getpid()
        # Agent code may report from a finaliser, which can run within a call from the same thread.
        self._lock = threading.RLock()
        self._lines: deque[Line] = deque()
        self._line_bytes = 0
        self._progress: dict[AttemptId, Progress] = {}
        self._ended: list[Ended] = []

    @property
    def is_of_another_process(self) -> bool:
        """Whether this is a copy that a fork made: nobody empties it, and its lock may be held for ever."""
        return os.getpid() != self._pid

    @property
    def is_full(self) -> bool:
        """Whether further log lines would be too many."""
        return len(self._lines) >= MAX_LINES or self._line_bytes >= MAX_LINE_BYTES

    @property
    def is_half_full(self) -> bool:
        """Whether log lines are written much faster than they are sent."""
        return len(self._lines) >= MAX_LINES // 2 or self._line_bytes >= MAX_LINE_BYTES // 2

    def log(self, line: Line) -> None:
        """Queues a line. Callers look at `is_full` first."""
        with self._lock:
            self._lines.append(line)
            self._line_bytes += len(line.message)
        self._doorbell.ring()

    def progress(self, attempt: AttemptId, percent: float, message: str | None) -> None:
        """Queues a report in place of the attempt's last one; a message stays until there is a newer one."""
        if self.is_of_another_process:
            return
        with self._lock:
            if message is None and attempt in self._progress:
                message = self._progress[attempt][1]
            self._progress[attempt] = (percent, message)
        self._doorbell.ring()

    def end(self, attempt: AttemptId, outcome: runners_pb2.Outcome | None) -> None:
        """The code of the attempt has ended. Its lines and progress were queued before."""
        with self._lock:
            self._ended.append((attempt, outcome))
        self._doorbell.ring()

    def take_ended(self) -> list[Ended]:
        """The attempts that ended since the last call."""
        self._doorbell.answered()
        with self._lock:
            ended, self._ended = self._ended, []
            return ended

    def take_reports(self) -> tuple[deque[Line], dict[AttemptId, Progress]]:
        """Lines and progress that wait."""
        with self._lock:
            lines, self._lines, self._line_bytes = self._lines, deque(), 0
            progress, self._progress = self._progress, {}
            return lines, progress

    def put_back(self, lines: Iterable[Line], progress: dict[AttemptId, Progress]) -> None:
        """Reports that could not be sent after all, older than those that wait."""
        with self._lock:
            self._lines.extendleft(reversed(list(lines)))
            self._line_bytes = sum(len(line.message) for line in self._lines)
            self._progress = progress | self._progress

    @property
    def has_reports(self) -> bool:
        """Whether lines or progress wait."""
        return bool(self._lines or self._progress)

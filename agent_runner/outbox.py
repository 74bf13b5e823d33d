"""What waits to be said to the server, and the attempts that are held until their outcome is settled.

Written by the threads that run agent code, emptied by the link. Bounded: beyond the limits log lines are dropped and
counted, progress keeps its last value, and the capacity goes to 0 so that no more work comes. Outcomes are never
dropped.
"""

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from agent_orchestration.v1 import common_pb2, runners_pb2

MAX_LOG_LINES: Final = 10_000
MAX_LOG_BYTES: Final = 4 * 1024 * 1024
MAX_OUTCOMES: Final = 10_000
MAX_OUTCOME_BYTES: Final = 64 * 1024 * 1024
MESSAGE_BYTES: Final = 2 * 1024 * 1024
MESSAGE_ITEMS: Final = 2_000


class Attempt(NamedTuple):
    """One attempt at a task."""

    task_id: str
    number: int

    def message(self) -> runners_pb2.Attempt:
        """As the stream has it."""
        return runners_pb2.Attempt(task_id=self.task_id, number=self.number)


@dataclass(frozen=True, slots=True)
class _Line:
    attempt: Attempt
    level: common_pb2.LogLevel.ValueType
    message: str
    at: float


class Outbox:
    """Everything that one instance has yet to say."""

    def __init__(self, wake: Callable[[], None]) -> None:
        """`wake` is called, from any thread, when there is something to send."""
        self._wake = wake
        self._lock = threading.Lock()
        self._held: set[Attempt] = set()
        self._progress: dict[Attempt, tuple[float, str | None]] = {}
        self._lines: deque[_Line] = deque()
        self._line_bytes = 0
        self._dropped: Counter[Attempt] = Counter()
        self._outcomes: dict[Attempt, runners_pb2.Outcome] = {}
        self._outcome_bytes = 0
        self._unsent: dict[Attempt, None] = {}

    def hold(self, attempt: Attempt) -> bool:
        """Takes up an attempt; False when it is held already."""
        with self._lock:
            new = attempt not in self._held
            self._held.add(attempt)
            return new

    def held(self) -> list[Attempt]:
        """Attempts that run or whose outcome is not settled."""
        with self._lock:
            return list(self._held)

    def running(self) -> list[Attempt]:
        """Attempts that have no outcome yet."""
        with self._lock:
            return [attempt for attempt in self._held if attempt not in self._outcomes]

    @property
    def is_full(self) -> bool:
        """Whether so much waits to be settled that no more work should come."""
        return len(self._outcomes) >= MAX_OUTCOMES or self._outcome_bytes >= MAX_OUTCOME_BYTES

    def progress(self, attempt: Attempt, percent: float, message: str | None) -> None:
        """The last report of an attempt is the one that is sent."""
        with self._lock:
            if attempt not in self._held:
                return
            kept = self._progress.get(attempt)
            self._progress[attempt] = (percent, message if message is not None or kept is None else kept[1])
        self._wake()

    def log(self, attempt: Attempt, level: common_pb2.LogLevel.ValueType, message: str) -> None:
        """One line, already cut to size."""
        with self._lock:
            if attempt not in self._held:
                return
            if len(self._lines) >= MAX_LOG_LINES or self._line_bytes >= MAX_LOG_BYTES:
                self._dropped[attempt] += 1
                return
            self._lines.append(_Line(attempt, level, message, time.monotonic()))
            self._line_bytes += len(message)
        self._wake()

    def end(self, attempt: Attempt, outcome: runners_pb2.Outcome) -> None:
        """The outcome of an attempt; nothing happens when it is no longer held."""
        with self._lock:
            if attempt not in self._held or attempt in self._outcomes:
                return
            outcome.attempt.CopyFrom(attempt.message())
            self._outcomes[attempt] = outcome
            self._outcome_bytes += len(outcome.result)
            self._unsent[attempt] = None
        self._wake()

    def settle(self, attempt: Attempt) -> None:
        """The server knows the outcome, or does not want it."""
        with self._lock:
            self._held.discard(attempt)
            self._progress.pop(attempt, None)
            self._unsent.pop(attempt, None)
            outcome = self._outcomes.pop(attempt, None)
            if outcome is not None:
                self._outcome_bytes -= len(outcome.result)

    def reconnected(self) -> None:
        """A new stream: every outcome that is not settled is sent again."""
        with self._lock:
            self._unsent = dict.fromkeys(self._outcomes)

    def take(self) -> list[runners_pb2.ConnectRequest]:
        """What waits, as messages: an attempt's lines and progress go before its outcome."""
        with self._lock:
            lines = self._take_lines()
            progress, self._progress = self._progress, {}
            outcomes = [self._outcomes[attempt] for attempt in self._unsent]
            self._unsent.clear()
        now = time.monotonic()
        return [*_log_messages(lines, now), *_progress_messages(progress), *_outcome_messages(outcomes)]

    def _take_lines(self) -> list[_Line]:
        lines = list(self._lines)
        self._lines.clear()
        self._line_bytes = 0
        for attempt, count in self._dropped.items():
            text = f"{count} log lines dropped: written faster than they could be sent"
            lines.append(_Line(attempt, common_pb2.LOG_LEVEL_WARNING, text, time.monotonic()))
        self._dropped.clear()
        return lines


def _log_messages(lines: list[_Line], now: float) -> Iterator[runners_pb2.ConnectRequest]:
    reports: list[runners_pb2.LogReport] = []
    size = 0
    for line in lines:
        report = runners_pb2.LogReport(attempt=line.attempt.message(), level=line.level, message=line.message)
        report.age.FromMicroseconds(max(0, round((now - line.at) * 1e6)))
        if size > MESSAGE_BYTES or len(reports) >= MESSAGE_ITEMS:
            yield runners_pb2.ConnectRequest(log=runners_pb2.Log(reports=reports))
            reports, size = [], 0
        reports.append(report)
        size += 4 * len(line.message)
    if reports:
        yield runners_pb2.ConnectRequest(log=runners_pb2.Log(reports=reports))


def _progress_messages(
    progress: dict[Attempt, tuple[float, str | None]],
) -> Iterator[runners_pb2.ConnectRequest]:
    reports = [
        runners_pb2.ProgressReport(attempt=attempt.message(), progress=percent, message=message)
        for attempt, (percent, message) in progress.items()
    ]
    for start in range(0, len(reports), MESSAGE_ITEMS):
        part = reports[start : start + MESSAGE_ITEMS]
        yield runners_pb2.ConnectRequest(progress=runners_pb2.Progress(reports=part))


def _outcome_messages(outcomes: list[runners_pb2.Outcome]) -> Iterator[runners_pb2.ConnectRequest]:
    part: list[runners_pb2.Outcome] = []
    size = 0
    for outcome in outcomes:
        length = outcome.ByteSize()
        if part and (size + length > MESSAGE_BYTES or len(part) >= MESSAGE_ITEMS):
            yield runners_pb2.ConnectRequest(outcomes=runners_pb2.Outcomes(outcomes=part))
            part, size = [], 0
        part.append(outcome)
        size += length
    if part:
        yield runners_pb2.ConnectRequest(outcomes=runners_pb2.Outcomes(outcomes=part))

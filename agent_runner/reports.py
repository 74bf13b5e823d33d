"""The reports of one attempt on their way to the outbox: the first lines, the last ones, and how many are missing."""

import threading
from collections import deque
from typing import Final

from agent_orchestration.v1 import common_pb2
from agent_runner.outbox import AttemptId, Line, Outbox

# The server keeps 10,000 lines of a task: room is left for the last lines, a traceback, and what counts the missing.
FIRST_LINES: Final = 9_000
LAST_LINES: Final = 400
LAST_BYTES: Final = 512 * 1024


class Reports:
    """Takes what one attempt reports. Lines that are too many, or come while the outbox is full, wait in a ring.

    A ring that overflows loses its oldest; its lines are written as soon as there is room, or else at the end.
    """

    def __init__(self, attempt: AttemptId, outbox: Outbox) -> None:
        self._attempt = attempt
        self._outbox = outbox
        # Agent code may report from a finaliser, which can run within a call from the same thread.
        self._lock = threading.RLock()
        self._written = 0
        self._last: deque[Line] = deque()
        self._last_bytes = 0
        self._dropped = 0
        self._is_closed = False

    def log(self, level: common_pb2.LogLevel.ValueType, text: str, *, even_if_full: bool = False) -> None:
        """Takes a line of at most 8 KiB. `even_if_full` is for the few lines that must not be missing."""
        if self._outbox.is_of_another_process:
            return
        line = Line(self._attempt, level, text)
        with self._lock:
            if self._is_closed:
                return
            if even_if_full or (self._written < FIRST_LINES and not self._outbox.is_full):
                self._write_last()
                self._write(line)
            else:
                self._keep(line)

    def progress(self, percent: float, message: str | None) -> None:
        """Takes a report from 0 to 100."""
        if not self._is_closed:
            self._outbox.progress(self._attempt, percent, message)

    def close(self) -> None:
        """Writes what waits; nothing is taken from here on."""
        with self._lock:
            if not self._is_closed:
                self._write_last()
                self._is_closed = True

    def _keep(self, line: Line) -> None:
        self._last.append(line)
        self._last_bytes += len(line.message)
        while len(self._last) > LAST_LINES or self._last_bytes > LAST_BYTES:
            self._last_bytes -= len(self._last.popleft().message)
            self._dropped += 1

    def _write_last(self) -> None:
        if self._dropped:
            text = f"{self._dropped:,} log lines dropped: too many, or written faster than they could be sent"
            self._write(Line(self._attempt, common_pb2.LOG_LEVEL_WARNING, text))
            self._dropped = 0
        while self._last:
            self._write(self._last.popleft())
        self._last_bytes = 0

    def _write(self, line: Line) -> None:
        self._written += 1
        self._outbox.log(line)

"""The deadlines of many calls behind one timer. Nearly every call ends long before its own."""

import asyncio
import math
import time
from asyncio import TimerHandle
from typing import Any, Final

_LATE: Final = -math.inf


class Deadlines:
    """Cancels the tasks whose time is over."""

    def __init__(self) -> None:
        self._ends: dict[asyncio.Task[Any], float] = {}
        self._timer: TimerHandle | None = None
        self._timer_at = math.inf

    def start(self, task: asyncio.Task[Any], seconds: float) -> None:
        """Gives a task so many seconds."""
        end = time.monotonic() + seconds
        self._ends[task] = end
        if end < self._timer_at:
            self._start_timer(end)

    def is_over(self, task: asyncio.Task[Any]) -> bool:
        """Whether its time ran out: then that is why it was cancelled."""
        return self._ends[task] == _LATE

    def finish(self, task: asyncio.Task[Any]) -> None:
        """The task has ended, in time or not."""
        del self._ends[task]

    def _start_timer(self, end: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = end
        self._timer = asyncio.get_running_loop().call_later(max(0.0, end - time.monotonic()), self._expire)

    def _expire(self) -> None:
        self._timer = None
        self._timer_at = math.inf
        now = time.monotonic()
        next_end = math.inf
        for task, end in self._ends.items():
            if end > now:
                next_end = min(next_end, end)
            elif end != _LATE:
                self._ends[task] = _LATE
                task.cancel()
        if next_end < math.inf:
            self._start_timer(next_end)

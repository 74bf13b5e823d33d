"""A deadline that moves with every request, and costs next to nothing to move."""

import asyncio
import time
from asyncio import TimerHandle
from collections.abc import Callable


class Deadline:
    """Calls what was set last, once its time has come. The timer behind it is moved only when it would be too late."""

    def __init__(self) -> None:
        self._timer: TimerHandle | None = None
        self._timer_at = 0.0
        self._at = 0.0
        self._then: Callable[[], None] | None = None

    def set(self, seconds: float, then: Callable[[], None]) -> None:
        """Calls `then` in that many seconds, and nothing that was set before."""
        self._at = time.monotonic() + seconds
        self._then = then
        if self._timer is None or self._timer_at > self._at:
            self._start_timer(seconds)

    def clear(self) -> None:
        """Calls nothing."""
        self._then = None

    def close(self) -> None:
        """Gives back the timer."""
        self._then = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _start_timer(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = self._at
        self._timer = asyncio.get_running_loop().call_later(seconds, self._fired)

    def _fired(self) -> None:
        self._timer = None
        then = self._then
        if then is None:
            return
        left = self._at - time.monotonic()
        if left > 0:
            self._start_timer(left)
        else:
            self._then = None
            then()

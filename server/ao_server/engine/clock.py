"""Time, passed in wherever it is needed so that tests need not sleep."""

import time
from typing import Protocol


class Clock(Protocol):
    """The two times a server lives by."""

    def now(self) -> int:
        """Microseconds since 1970, UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds that never jump: for leases and time-outs."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now(self) -> int:
        """Microseconds since 1970, UTC."""
        return time.time_ns() // 1000

    def monotonic(self) -> float:
        """Seconds that never jump."""
        return time.monotonic()

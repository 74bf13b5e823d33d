"""When a dead half is started again, and when it has died too often."""

from collections import deque
from typing import Final

WINDOW_SECONDS: Final = 30.0
MAX_DEATHS: Final = 5
FIRST_DELAY_SECONDS: Final = 0.1
MAX_DELAY_SECONDS: Final = 5.0


class Restarts:
    """Counts the deaths of one process. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._deaths: deque[float] = deque()

    def after_death(self, now: float) -> float | None:
        """Seconds to wait before the next start; None when it died too often to go on."""
        self._deaths.append(now)
        while self._deaths[0] <= now - WINDOW_SECONDS:
            self._deaths.popleft()
        if len(self._deaths) >= MAX_DEATHS:
            return None
        return min(FIRST_DELAY_SECONDS * 4 ** (len(self._deaths) - 1), MAX_DELAY_SECONDS)

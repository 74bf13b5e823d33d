"""How many frames a client may send over one WebSocket."""

import time
from collections.abc import Callable
from typing import Final

FRAMES_A_SECOND: Final = 60
BURST: Final = 300
# Of a client that goes on. It is forgotten once the client has been quiet for as long as a burst takes to come back.
MAX_REFUSED: Final = 1_000


class FrameRate:
    """Room for a burst, which comes back at a steady rate. A refused frame takes no room."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._room = float(BURST)
        self._seen = monotonic()
        self._refused = 0

    @property
    def is_flooded(self) -> bool:
        """Whether the client goes on and on sending more than it may."""
        return self._refused > MAX_REFUSED

    def take(self) -> bool:
        """Whether one more frame has room."""
        now = self._monotonic()
        self._room += (now - self._seen) * FRAMES_A_SECOND
        self._seen = now
        if self._room >= BURST:
            self._room = float(BURST)
            self._refused = 0
        if self._room < 1.0:
            self._refused += 1
            return False
        self._room -= 1.0
        return True

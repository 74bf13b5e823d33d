"""The instance's own view of its lease: until when what it holds is surely nobody else's.

Pure: the caller passes in monotonic seconds. The clock errs on the safe side. It counts from the sending of the last
status that was answered, and it ends a second before the server's own.
"""

import math
from typing import Final

MARGIN_SECONDS: Final = 1.0
HELLO: Final = 0


class LeaseClock:
    """Runs from each renewal, and stands still while no server is up.

    That no server is up is known for single moments: a connect was refused, or the server said that it stops. Whatever
    server comes up after such a moment gives everybody a full lease before it hands anything out. So the clock may
    stand still from one such moment to the next, but never longer than a lease after the last one: this process itself
    may have been stopped meanwhile.
    """

    def __init__(self) -> None:
        self._lease = 0.0
        self._deadline = math.inf
        self._sent: dict[int, float] = {}
        # While the clock stands still: the last moment at which no server was up, and what was left then.
        self._down_at: float | None = None
        self._left = math.inf

    @property
    def deadline(self) -> float:
        """When the attempts must be given up, as far as is known now. Infinite while there is no lease."""
        if self._down_at is None:
            return self._deadline
        return self._patience() if math.isfinite(self._left) else math.inf

    def is_expired(self, now: float) -> bool:
        """Whether the server may have handed the attempts to others."""
        return now >= self.deadline

    def sent(self, number: int, now: float) -> None:
        """A status is about to be sent; `HELLO` begins a new stream."""
        if number == HELLO:
            self._sent.clear()
        self._sent[number] = now

    def welcomed(self, lease: float) -> None:
        """The server answered hello: a lease of so many seconds runs from the sending of it."""
        sent_at = self._sent.pop(HELLO, None)
        if sent_at is not None:
            self._lease = lease
            self._down_at = None
            self._deadline = sent_at + lease - MARGIN_SECONDS

    def renewed(self, number: int) -> None:
        """The server answered this status of the stream."""
        sent_at = self._sent.pop(number, None)
        if sent_at is None or math.isinf(self.deadline):
            return
        self._sent = {later: at for later, at in self._sent.items() if later > number}
        deadline = sent_at + self._lease - MARGIN_SECONDS
        if self._down_at is None:
            self._deadline = max(self._deadline, deadline)
        else:
            self._left = max(self._left, deadline - self._down_at)

    def down(self, at: float) -> None:
        """At this moment no server was up: the clock stands still from here."""
        if self.is_expired(at):
            return
        if self._down_at is None:
            self._left = self._deadline - at
        self._down_at = at

    def up(self, at: float) -> None:
        """A connect begun at this moment was not refused: the clock runs from here."""
        if self._down_at is not None:
            self._deadline = min(at + self._left, self.deadline)
            self._down_at = None

    def lapse(self) -> None:
        """The attempts were given up: there is nothing left to lose."""
        self._deadline = self._left = math.inf
        self._sent.clear()

    def _patience(self) -> float:
        """When a server that came up right after the last moment without one would hand things out."""
        return (self._down_at or 0.0) + self._lease - MARGIN_SECONDS

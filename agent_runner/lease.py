"""The instance's own view of its lease: when it must stop its attempts because the server may hand them to others.

Pure: the caller passes in monotonic seconds. The clock errs on the safe side: it counts from the sending of the last
status that was answered, and ends a second before the server's own.
"""

from typing import Final

MARGIN_SECONDS: Final = 1.0
# Standing still is granted from one attempt to connect to the next. A longer gap means that this process stood still
# itself (a suspended machine, SIGSTOP), and then nobody knows what the server did meanwhile.
MAX_STANDSTILL_SECONDS: Final = 10.0


class LeaseClock:
    """Runs from each renewal, and stands still while no server is up."""

    def __init__(self) -> None:
        self._lease = 0.0
        self._deadline: float | None = None
        self._sent: dict[int, float] = {}
        self._standing_since: float | None = None

    def sent(self, number: int, now: float) -> None:
        """A status with this number was sent; hello is number 0."""
        self._sent[number] = now

    def welcomed(self, lease: float) -> None:
        """The server answered hello: the lease runs from the sending of it."""
        self._lease = lease
        self._standing_since = None
        self.renewed(0)

    def renewed(self, number: int) -> None:
        """The server answered this status."""
        sent_at = self._sent.pop(number, None)
        if sent_at is not None:
            self._deadline = max(self._deadline or sent_at, sent_at + self._lease - MARGIN_SECONDS)
        self._sent = {later: at for later, at in self._sent.items() if later > number}

    def stopping(self, now: float) -> None:
        """The server said that it goes down on purpose: the clock stands still until a connect is not refused."""
        self._standing_since = now

    def connecting(self, now: float, *, refused: bool) -> None:
        """An attempt to connect was made; refused means that no server is up."""
        self._sent.clear()
        if self._deadline is not None:
            self._deadline += self._standstill(now)
        self._standing_since = now if refused else None

    def is_expired(self, now: float) -> bool:
        """Whether the server may have handed out the attempts. False before the first welcome: none are held."""
        return self._deadline is not None and now >= self._deadline + self._standstill(now)

    def reset(self) -> None:
        """The attempts were given up: there is nothing left to lose."""
        self._deadline = None

    def _standstill(self, now: float) -> float:
        if self._standing_since is None:
            return 0.0
        stood = now - self._standing_since
        return stood if stood <= MAX_STANDSTILL_SECONDS else 0.0

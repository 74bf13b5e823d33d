"""Outcomes on their way to the server, and when the next may follow.

Pure: the caller passes in monotonic seconds. The server commits what comes together at once, and answers with new work
for the slots that it frees. So one message with the outcomes of all slots is cheaper, and sooner done, than two that
take turns. Once outcomes go in two groups nothing brings these together again, unless one waits for the other.
"""

from collections.abc import Set as AbstractSet
from typing import Final

from agent_runner.outbox import AttemptId

# The server writes one while the next is on its way.
MAX_MESSAGES: Final = 2
# How long outcomes that had to wait for a message to be settled also wait for those of the work that follows it.
GATHER_SECONDS: Final = 0.001


class Flight:
    """The messages of one stream that are not settled."""

    def __init__(self) -> None:
        self._messages: list[set[AttemptId]] = []
        self._has_held_back = False
        self._gathers_until = 0.0

    def may_follow(self, waiting: int, capacity: int, is_busy: bool, now: float) -> bool:
        """Whether outcomes that wait may go now. `is_busy`: whether there are attempts that have no outcome yet."""
        if len(self._messages) >= MAX_MESSAGES:
            self._has_held_back = True
            return False
        if waiting + sum(map(len, self._messages)) < capacity and now < self._gathers_until:
            return False
        if self._messages and not is_busy:
            # No slot will have an outcome before one of these is settled.
            self._has_held_back = True
            return False
        return True

    def gathers_for(self, now: float) -> float:
        """For how many more seconds outcomes may have to wait although nothing is settled meanwhile."""
        return max(0.0, self._gathers_until - now)

    def sent(self, attempts: AbstractSet[AttemptId]) -> None:
        """A message with these outcomes is being sent."""
        self._messages.append(set(attempts))
        self._has_held_back = False

    def settled(self, attempts: AbstractSet[AttemptId], now: float) -> None:
        """The server has dealt with these."""
        for message in self._messages:
            message -= attempts
        self._messages = [message for message in self._messages if message]
        if self._has_held_back:
            self._has_held_back = False
            self._gathers_until = now + GATHER_SECONDS

"""The calls that a relay has taken and not yet answered, and how many they may be."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

MAX_CALLS: Final = 1_000
# Of calls that wait for something to happen, beside the others: they cost the server next to nothing.
MAX_WAITING: Final = 5_000
MAX_BYTES: Final = 64 * 1024 * 1024


@dataclass(slots=True, eq=False)
class Pending:
    """A call without an answer. `is_read`: it may be sent twice. `is_waiting`: the server answers when it may."""

    number: int
    method: str
    message: bytes
    metadata: Mapping[str, str]
    is_read: bool
    is_waiting: bool
    deadline: float
    answer: "asyncio.Future[bytes]"
    is_sent: bool = False
    is_retried: bool = False


class InFlight:
    """Calls by number. Those that wait have a limit of their own, so that they leave room for the others."""

    def __init__(self) -> None:
        self.pending: dict[int, Pending] = {}
        self._waiting = 0
        self._bytes = 0

    def has_room(self, size: int, *, is_waiting: bool) -> bool:
        """Whether one more call of that many bytes may be taken."""
        if self._bytes + size > MAX_BYTES:
            return False
        return self._waiting < MAX_WAITING if is_waiting else len(self.pending) - self._waiting < MAX_CALLS

    def add(self, pending: Pending) -> None:
        """Takes a call."""
        self.pending[pending.number] = pending
        self._waiting += pending.is_waiting
        self._bytes += len(pending.message)

    def pop(self, number: int) -> Pending | None:
        """Gives up a call; None when there is no such call any more."""
        pending = self.pending.pop(number, None)
        if pending is not None:
            self._waiting -= pending.is_waiting
            self._bytes -= len(pending.message)
        return pending

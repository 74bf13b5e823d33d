"""How the link hears that something waits in the outbox: once for all that is said in a turn of the user's loop."""

import threading
import time
from collections.abc import Callable
from typing import Final

from agent_runner.user_loop import UserLoop

# A turn that takes longer than this does not keep waiting what was said in it.
LONG_TURN_SECONDS: Final = 0.001


class Doorbell:
    """Rung from any thread, answered by the link. `wake` is called, from any thread, once for each answer.

    Waking another thread costs more than a short function does. So what comes from the user's loop waits for the end of
    its turn, in which many functions may end. When one of them blocks the loop, the loop's watch rings.
    """

    def __init__(self, user: UserLoop, wake: Callable[[], None]) -> None:
        self._user = user
        self._wake = wake
        self._is_rung = False
        # Since when something waits for the end of the turn.
        self._waits_since: float | None = None
        user.at_end_of_turn(self._turn_ended)
        user.at_each_beat(self._ring_for_long_turn)

    def ring(self) -> None:
        """Something was queued, before this call."""
        if self._is_rung:
            return
        if threading.get_ident() == self._user.thread and self._may_wait():
            return
        self._ring_now()

    def answered(self) -> None:
        """All that is queued will be taken, after this call."""
        self._is_rung = False

    def _ring_now(self) -> None:
        self._is_rung = True
        self._wake()

    def _may_wait(self) -> bool:
        now = time.monotonic()
        if self._waits_since is None:
            self._waits_since = now
            self._user.end_turn_soon()
        return now - self._waits_since < LONG_TURN_SECONDS

    def _ring_for_long_turn(self) -> None:
        if self._waits_since is not None and not self._is_rung:
            self._ring_now()

    def _turn_ended(self) -> None:
        if self._waits_since is not None:
            self._waits_since = None
            if not self._is_rung:
                self._ring_now()

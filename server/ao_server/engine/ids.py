"""Ids: a prefix and 26 characters that begin with the time, so that the order of ids is the order of creation.

The 26 characters are Crockford's base32 of 48 bits of milliseconds and 80 random bits. Within one millisecond the last
value is counted up. Lists use the order instead of an index on the creation time.
"""

import secrets
import threading
from collections.abc import Callable, Iterable
from typing import Final

from ao_server.store.id_times import RANDOM_BITS, text, time_of

# Microseconds by which the clock may have gone back while no server ran. A clock that was wrong by more was wrong: what
# it made keeps its place, and all else need not wait until that time has come.
FOLLOWED: Final = 24 * 3600 * 1_000_000


class Ids:
    """Makes ids, each greater than the one before."""

    def __init__(self, random_bits: Callable[[int], int] = secrets.randbits) -> None:
        self._random_bits = random_bits
        self._last = 0
        self._lock = threading.Lock()

    def follow(self, made: Iterable[str], now: int) -> None:
        """What is made from here on is greater than these, which another process has made; `now` in microseconds."""
        with self._lock:
            for time in map(time_of, made):
                if time - now <= FOLLOWED:
                    self._last = max(self._last, (time // 1000 + 1 << RANDOM_BITS) - 1)

    def new(self, prefix: str, now: int) -> tuple[str, int]:
        """An id such as `task_01k...` and the time that stands in it, in microseconds: the object's creation time.

        The time is `now` to the millisecond, or the last id's when the clock went back.
        """
        with self._lock:
            earliest = (now // 1000) << RANDOM_BITS
            value = earliest | self._random_bits(RANDOM_BITS) if earliest > self._last else self._last + 1
            self._last = max(value, self._last + 1)
            value = self._last
        return f"{prefix}_{text(value)}", (value >> RANDOM_BITS) * 1000

"""Ids: a prefix and 26 characters that begin with the time, so that the order of ids is the order of creation.

The 26 characters are Crockford's base32 of 48 bits of milliseconds and 80 random bits. Within one millisecond the last
value is counted up. Lists use the order instead of an index on the creation time.
"""

import secrets
import threading
from collections.abc import Callable

from ao_server.store.id_times import RANDOM_BITS, TEXT_LENGTH, text, value_of


class Ids:
    """Makes ids, each greater than the one before."""

    def __init__(self, random_bits: Callable[[int], int] = secrets.randbits) -> None:
        self._random_bits = random_bits
        self._last = 0
        self._lock = threading.Lock()

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

    def follow(self, identifier: str | None) -> None:
        """From now on ids are greater than this one too, which another server may have made by another clock."""
        if identifier is None:
            return
        with self._lock:
            # Texts are compared first: the value takes far longer to read.
            if identifier[-TEXT_LENGTH:] > text(self._last):
                self._last = value_of(identifier)

"""Ids: a prefix and 26 characters that begin with the time, so that the order of ids is the order of creation.

The 26 characters are Crockford's base32 of 48 bits of milliseconds and 80 random bits. Within one millisecond the last
value is counted up. Lists use the order instead of an index on the creation time.
"""

import secrets
import threading
from collections.abc import Callable
from typing import Final

_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS: Final = [first + second for first in _ALPHABET for second in _ALPHABET]
_RANDOM_BITS: Final = 80
_TEXT_LENGTH: Final = 26


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
            earliest = (now // 1000) << _RANDOM_BITS
            value = earliest | self._random_bits(_RANDOM_BITS) if earliest > self._last else self._last + 1
            self._last = max(value, self._last + 1)
            value = self._last
        return f"{prefix}_{_text(value)}", (value >> _RANDOM_BITS) * 1000


def first_at(prefix: str, time: int) -> str:
    """The smallest id that an object created at this time (microseconds, rounded up) or later can have."""
    milliseconds = min(max(-(-time // 1000), 0), (1 << 48) - 1)
    return f"{prefix}_{_text(milliseconds << _RANDOM_BITS)}"


def _text(value: int) -> str:
    pairs = [_PAIRS[(value >> shift) & 1023] for shift in range(120, -1, -10)]
    return "".join(pairs)[-_TEXT_LENGTH:]

"""How an id begins with its time, so that the order of ids is the order of creation.

An id is a prefix and 26 characters, Crockford's base32 of 48 bits of milliseconds and 80 random bits.
"""

from functools import lru_cache
from typing import Final

_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS: Final = [first + second for first in _ALPHABET for second in _ALPHABET]
RANDOM_BITS: Final = 80
TEXT_LENGTH: Final = 26
_NO_RANDOM: Final = _ALPHABET[0] * (RANDOM_BITS // 5)


def first_at(prefix: str, time: int) -> str:
    """The smallest id that an object created at this time (microseconds, rounded up) or later can have."""
    milliseconds = min(max(-(-time // 1000), 0), (1 << 48) - 1)
    pairs = [_PAIRS[milliseconds >> shift & 1023] for shift in (40, 30, 20, 10, 0)]
    return f"{prefix}_{''.join(pairs)}{_NO_RANDOM}"


def time_of(identifier: str) -> int:
    """The creation time that an id begins with, in microseconds."""
    value = 0
    for letter in identifier[-TEXT_LENGTH:][: TEXT_LENGTH - RANDOM_BITS // 5]:
        value = value << 5 | _ALPHABET.index(letter)
    return value * 1000


def value_of(identifier: str) -> int:
    """The value of 128 bits that an id is the text of."""
    value = 0
    for letter in identifier[-TEXT_LENGTH:]:
        value = value << 5 | _ALPHABET.index(letter)
    return value


def text(value: int) -> str:
    """The 26 characters of a value of 128 bits."""
    return _front(value >> 30) + _PAIRS[(value >> 20) & 1023] + _PAIRS[(value >> 10) & 1023] + _PAIRS[value & 1023]


@lru_cache(maxsize=8)
def _front(value: int) -> str:
    """The first 20 characters: ids of one millisecond share them."""
    return "".join([_PAIRS[(value >> shift) & 1023] for shift in range(90, -1, -10)])

"""Ids of requests: the client's own when it is fit to be logged, else a fresh one."""

import random
import time
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from agent_orchestration.request_ids import is_fit

HEADER: Final = b"x-request-id"

_CROCKFORD: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS: Final = [first + second for first in _CROCKFORD for second in _CROCKFORD]
_RANDOM_BITS: Final = 80


def of(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The request's id: printable ASCII without spaces, no credential, safe to print, log and send on."""
    for name, value in headers:
        if name == HEADER and is_fit(given := value.decode("latin-1")):
            return given
    return fresh()


def fresh() -> str:
    """A new id, in the order of its making. It is no secret: nothing is allowed to whoever guesses it."""
    return _beginning(time.time_ns() // 1_000_000) + _text(random.getrandbits(_RANDOM_BITS), _RANDOM_BITS)


@lru_cache(maxsize=1)
def _beginning(milliseconds: int) -> str:
    return "req_" + _text(milliseconds, 50)


def _text(value: int, bits: int) -> str:
    return "".join([_PAIRS[value >> shift & 1023] for shift in range(bits - 10, -1, -10)])

"""Ids of requests: the client's own when it is fit to be logged, else a fresh one."""

import secrets
import time
from collections.abc import Iterable
from typing import Final

MAX_LENGTH: Final = 128
HEADER: Final = b"x-request-id"

_CROCKFORD: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS: Final = [first + second for first in _CROCKFORD for second in _CROCKFORD]


def of(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The request's id: printable ASCII without spaces, safe to print, log and send on."""
    for name, value in headers:
        if name == HEADER and 0 < len(value) <= MAX_LENGTH and all(33 <= byte <= 126 for byte in value):
            return value.decode()
    return fresh()


def fresh() -> str:
    """A new id, in the order of its making."""
    bits = time.time_ns() // 1_000_000 << 80 | secrets.randbits(80)
    return "req_" + "".join([_PAIRS[bits >> shift & 1023] for shift in range(120, -1, -10)])

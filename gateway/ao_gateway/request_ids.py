"""Ids of requests: the client's own when it is fit to be logged, else a fresh one."""

import base64
import secrets
import time
from collections.abc import Iterable
from typing import Final

MAX_LENGTH: Final = 128
HEADER: Final = b"x-request-id"

_CROCKFORD: Final = bytes.maketrans(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", b"0123456789abcdefghjkmnpqrstvwxyz")
_LENGTH: Final = 26


def of(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The request's id: printable ASCII without spaces, safe to print, log and send on."""
    for name, value in headers:
        if name == HEADER and 0 < len(value) <= MAX_LENGTH and all(33 <= byte <= 126 for byte in value):
            return value.decode()
    return fresh()


def fresh() -> str:
    """A new id, in the order of its making."""
    milliseconds = time.time_ns() // 1_000_000
    # Twenty bytes are 32 whole characters; the 128 bits that count are in the last 26.
    text = base64.b32encode(bytes(4) + milliseconds.to_bytes(6) + secrets.token_bytes(10))
    return "req_" + text.translate(_CROCKFORD)[-_LENGTH:].decode()

"""What the runner and the children of isolated functions say to each other: frames on a socket of their own.

A frame is a kind (1 byte), a length (4 bytes, big-endian) and a body. Bodies are messages of the runner protocol where
there is one: payload and result are JSON text and stay it.

    to the child    START (JSON: what to import), AGENT (JSON), RUN (Assignment), CANCEL
    to the runner   LOG and LAST_LOG (LogReport; the second must not be missing), PROGRESS (ProgressReport), OUTCOME
"""

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import Final

# A payload or a result has 1 MiB at most, a configuration 64 KiB.
MAX_BODY_BYTES: Final = 4 * 1024 * 1024
PIECE_BYTES: Final = 64 * 1024
_HEADER: Final = struct.Struct(">BI")


class Kind(IntEnum):
    """What a frame says."""

    START = 1
    AGENT = 2
    RUN = 3
    CANCEL = 4
    LOG = 5
    LAST_LOG = 6
    PROGRESS = 7
    OUTCOME = 8


_KINDS: Final = frozenset(int(kind) for kind in Kind)


class BadFrame(Exception):
    """What came is no frame: somebody else writes on the socket."""


def frame(kind: Kind, body: bytes = b"") -> bytes:
    """One frame."""
    return _HEADER.pack(kind, len(body)) + body


class FrameReader:
    """Cuts what comes into frames."""

    def __init__(self) -> None:
        self._begun = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[Kind, bytes]]:
        """The frames that are complete now. BadFrame when it is none."""
        self._begun += data
        while len(self._begun) >= _HEADER.size:
            kind, length = _HEADER.unpack_from(self._begun)
            if kind not in _KINDS or length > MAX_BODY_BYTES:
                raise BadFrame(f"kind {kind}, {length} bytes")
            end = _HEADER.size + length
            if len(self._begun) < end:
                return
            body = bytes(self._begun[_HEADER.size : end])
            del self._begun[:end]
            yield Kind(kind), body

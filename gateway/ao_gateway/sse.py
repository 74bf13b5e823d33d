"""The text of Server-Sent Events, as the HTML standard has it.

`id` alone is kept by clients as the place to resume from, without an event: so it tells where the stream stands.
"""

import re
from typing import Final

from ao_gateway.encode import encode
from ao_gateway.errors import Refusal, contents

RETRY_MILLISECONDS: Final = 1000
# JSON may be spread over lines, and any of these ends one here.
_LINE_END: Final = re.compile(rb"\r\n|\r|\n")


def opening(cursor: str) -> bytes:
    """The beginning of a stream: what follows lies behind the cursor."""
    return b": events follow as they happen\nretry: %d\n%s\n" % (RETRY_MILLISECONDS, _id(cursor))


def comment(cursor: str) -> bytes:
    """A sign of life; with a cursor, the stream stands there now."""
    return b": the stream is alive\n%s\n" % _id(cursor)


def event(event_type: str, cursor: str, message: bytes) -> bytes:
    """One event; without a cursor it is outside the feed."""
    return b"%sevent: %s\n%s\n" % (_id(cursor), event_type.encode(), _data(message))


def cut_off(refusal: Refusal, request_id: str, cursor: str) -> bytes:
    """The last event of a stream that the client did not end itself, and where to resume from."""
    return b"event: error\n%s\n" % _data(encode({"error": contents(refusal, request_id), "cursor": cursor}))


def _id(cursor: str) -> bytes:
    return b"id: %s\n" % cursor.encode() if cursor else b""


def _data(message: bytes) -> bytes:
    return b"".join(b"data: %s\n" % line for line in _LINE_END.split(message))

"""Cross-origin resource sharing: which pages of other origins may read the API's answers.

Credentials are bearer headers that a page must hold itself, never cookies, so an allowed origin gains nothing but the
right to read what its user's key may read.
"""

from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

from ao_gateway.errors import Headers

# Where the application's state holds them, for what is answered without an application.
CORS: Final = "cors"
ANY: Final = "*"
# What a page's script may send and read, beside what is always allowed.
REQUEST_HEADERS: Final = ("Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID", "X-Request-Id")
ANSWER_HEADERS: Final = (
    *("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"),
    *("Retry-After", "X-Request-Id", "Idempotent-Replayed", "Allow", "WWW-Authenticate"),
)
METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
# How long a browser may remember the answer to a preflight; Chromium keeps none for longer.
MAX_AGE_SECONDS: Final = 7200

_VARY: Final = (b"vary", b"Origin")
_EXPOSED: Final = (b"access-control-expose-headers", ", ".join(ANSWER_HEADERS).encode())
_PREFLIGHT: Final[Headers] = [
    (b"access-control-allow-methods", ", ".join(METHODS).encode()),
    (b"access-control-allow-headers", ", ".join(REQUEST_HEADERS).encode()),
    (b"access-control-max-age", str(MAX_AGE_SECONDS).encode()),
]
_DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}


class Cors:
    """The allowed origins, and what answers say to each."""

    def __init__(self, allowed: Iterable[str] = ()) -> None:
        """Origins as browsers print them, or `*` for all; none: no answer says anything."""
        self._answers: dict[bytes, Headers] = {}
        self._others: Headers = []
        for origin in allowed:
            said = [(b"access-control-allow-origin", origin.encode()), _EXPOSED]
            if origin == ANY:
                self._answers, self._others = {}, said
                break
            self._answers[origin.encode()] = [*said, _VARY]
            self._others = [_VARY]

    def headers(self, request: Headers) -> Headers:
        """What the answer to a request with these headers says to the page that sent it."""
        if not self._others:
            return []
        for name, value in request:
            if name == b"origin":
                return self._answers.get(value, self._others)
        return self._others

    def preflight(self, method: str, request: Headers) -> Headers | None:
        """What a browser is told that asks before a request of an allowed page; None for any other request.

        It holds for every path, whatever serves it: else the page could not read that a path or method is wrong.
        """
        if method != "OPTIONS" or not self._others:
            return None
        names = {name for name, _ in request}
        said = self.headers(request)
        if not {b"origin", b"access-control-request-method"} <= names or said == [_VARY]:
            return None
        return said + _PREFLIGHT


def origins(text: str) -> list[str]:
    """Origins separated by commas, as `Cors` takes them. ValueError, with the one that is wrong, for another.

    A browser's `Origin` is compared as it is: what it would print differently would never match.
    """
    found = [part for part in (part.strip() for part in text.split(",")) if part]
    for origin in found:
        if origin == ANY:
            if len(found) > 1:
                raise ValueError(origin)
        elif not _is_origin(origin):
            raise ValueError(origin)
    return found


def _is_origin(text: str) -> bool:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return False
    exact = f"{parts.scheme}://{parts.netloc}"
    default = _DEFAULT_PORTS.get(parts.scheme)
    is_host = bool(parts.hostname) and "@" not in parts.netloc and not parts.netloc.endswith(":")
    return (
        text == exact == text.lower()
        and text.isascii()
        and text.isprintable()
        and not any(character in text for character in " *,")
        and is_host
        and (default is None or port is None or not text.endswith(default))
    )

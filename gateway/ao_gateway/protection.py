"""What answers tell browsers to beware of. No page is made of the API's answers, so they may do nothing at all."""

from typing import Final

from ao_gateway.errors import Headers

# Of every answer, the handshake of a WebSocket and the beginning of a stream included.
ALWAYS: Final[Headers] = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
]
# Of every answer that came over TLS of our own: for a year, browsers are to use nothing else. What a proxy promises of
# the TLS that it brings is its own to say.
OVER_TLS: Final[Headers] = [(b"strict-transport-security", b"max-age=31536000")]
# Of what is data rather than a page.
POLICY: Final[Headers] = [(b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")]
# Of data that may be somebody's own, so that nobody keeps it.
DATA: Final[Headers] = [(b"cache-control", b"no-store"), *POLICY]

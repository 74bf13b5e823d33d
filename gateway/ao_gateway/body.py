"""The request's body: its type checked, its size bounded, a client that stops sending not waited for."""

import asyncio
from typing import Final

from starlette.types import Receive

from ao_gateway.disconnect import ClientGone
from ao_gateway.errors import CLOSE, Headers, Refusal, too_late, unavailable
from ao_gateway.rest import Request

MAX_BYTES: Final = 4 * 1024 * 1024
# Of all bodies that are being read at one time.
MAX_HELD_BYTES: Final = 128 * 1024 * 1024
GAP_SECONDS: Final = 30.0
_JSON: Final = b"application/json"


class BodyReader:
    """Reads bodies, and knows how much all of them hold."""

    def __init__(self, max_bytes: int = MAX_BYTES, max_held_bytes: int = MAX_HELD_BYTES) -> None:
        self._max_bytes = max_bytes
        self._max_held_bytes = max_held_bytes
        self._held = 0

    async def read(self, request: Request) -> bytes:
        """The whole body of JSON. Refusal as for `read_any`, and with 415 for any other type."""
        body = await self.read_any(request)
        if body.strip(b" \t\r\n") and not is_json(dict(request.headers).get(b"content-type", b"")):
            raise Refusal(415, "unsupported_media_type", "The Content-Type must be application/json")
        return body

    async def read_any(self, request: Request) -> bytes:
        """The whole body. Refusal with 413, 415 for an encoding, 408 when the client pauses, 503 when too much is
        held.
        """
        headers = dict(request.headers)
        if b"content-encoding" in headers:
            raise Refusal(415, "unsupported_media_type", "Content-Encoding is not supported")
        if b"transfer-encoding" in headers and not _is_chunked(request.headers):
            raise Refusal(415, "unsupported_media_type", "No other Transfer-Encoding than chunked is supported")
        # The parser has checked that it is a number. Zeros in front may be many.
        if int(headers.get(b"content-length", b"0").lstrip(b"0") or b"0") > self._max_bytes:
            raise self._too_large()
        body = request.exchange.take_body()
        if body is None:
            body = await self._collect(request.receive)
        elif len(body) > self._max_bytes:
            raise self._too_large()
        return body

    async def _collect(self, receive: Receive) -> bytes:
        parts: list[bytes] = []
        size = 0
        try:
            while True:
                try:
                    async with asyncio.timeout(GAP_SECONDS):
                        message = await receive()
                except TimeoutError:
                    refusal = too_late("The body did not arrive in time")
                    refusal.headers.append(CLOSE)
                    raise refusal from None
                if message["type"] == "http.disconnect":
                    raise ClientGone
                part = message.get("body", b"")
                parts.append(part)
                size += len(part)
                self._held += len(part)
                if size > self._max_bytes:
                    raise self._too_large()
                if self._held > self._max_held_bytes:
                    raise unavailable("Too many large requests are in flight")
                if not message.get("more_body", False):
                    return parts[0] if len(parts) == 1 else b"".join(parts)
        finally:
            self._held -= size

    def _too_large(self) -> Refusal:
        return Refusal(413, "payload_too_large", f"The body must be at most {self._max_bytes} bytes")


def is_json(content_type: bytes) -> bool:
    """Whether a Content-Type names JSON in UTF-8."""
    if content_type == _JSON:
        return True
    media = utf8_media_type(content_type)
    return media == _JSON or (media.startswith(b"application/") and media.endswith(b"+json"))


def utf8_media_type(content_type: bytes) -> bytes:
    """The type that a Content-Type names, in lower case; empty when it names another charset than UTF-8."""
    media, *parameters = (part.strip().lower() for part in content_type.split(b";"))
    for parameter in parameters:
        name, _, value = parameter.partition(b"=")
        if name == b"charset" and value.strip(b'"') not in (b"utf-8", b"utf8", b"us-ascii"):
            return b""
    return media


def _is_chunked(headers: Headers) -> bool:
    return all(value.lower() == b"chunked" for name, value in headers if name == b"transfer-encoding")

"""One request and its answer on a connection, as uvicorn has it, with a short way for what is the rule.

ASGI takes an answer in two messages, each of them checked and written, and gives a body in as many as it was read in.
Nearly every request here is one packet, and so is its answer.
"""

from typing import Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from ao_gateway.errors import CLOSE, Headers

_CLOSE_LINE: Final = b"connection: close\r\n"

_printed: tuple[Headers, bytes] = ([], b"")


def printed_defaults(headers: Headers) -> bytes:
    """The lines of the headers that every answer has: uvicorn makes a new list each second, for the date."""
    global _printed
    known, lines = _printed
    if known is not headers:
        lines = b"".join([b"%b: %b\r\n" % header for header in headers])
        _printed = headers, lines
    return lines


class Exchange(RequestResponseCycle):
    """As the ASGI server has it: `receive` and `send` go on working, for bodies and answers that come bit by bit."""

    def take_body(self) -> bytes | None:
        """The body, if all of it is here; it is given once. None when there is more to wait for, or nobody left."""
        if self.more_body or self.disconnected:
            return None
        self.message_event.clear()
        body = bytes(self.body)
        self.body = bytearray()
        return body

    async def answer(self, status: int, headers: Headers, body: bytes) -> None:
        """Sends a whole answer at once; its length is added to the headers.

        The headers are not checked: what a client had a say in must not be able to end a line.
        """
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        lines = [STATUS_LINE[status], printed_defaults(self.default_headers)]
        lines += [b"%b: %b\r\n" % header for header in headers]
        if CLOSE in headers:
            self.keep_alive = False
        elif not self.keep_alive:
            lines.append(_CLOSE_LINE)
        lines.append(b"content-length: %d\r\n\r\n" % len(body))
        if self.scope["method"] != "HEAD":
            lines.append(body)
        self.response_started = self.response_complete = True
        self.waiting_for_100_continue = False
        self.transport.write(b"".join(lines))
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()

"""uvicorn's HTTP protocol with the limits that it lacks, and with answers that a client can read.

Headers have a size and a time; a body that is refused early is read away for a while, so that the answer is not lost to
a reset; an `Upgrade` that is not to WebSocket, or not at its path, is ignored, as HTTP says.
"""

import asyncio
import socket
from collections import deque
from typing import Any, Final, cast
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from ao_gateway import errors, protection, request_ids
from ao_gateway.closed_once import ClosedOnce
from ao_gateway.cors import CORS, Cors
from ao_gateway.deadline import Deadline
from ao_gateway.errors import Refusal
from ao_gateway.event_stream import OUTLET
from ao_gateway.exchange import Exchange, printed_defaults
from ao_gateway.rest import EXCHANGE
from ao_gateway.sockets import SOCKET_PATH

MAX_HEAD_BYTES: Final = 64 * 1024
HEAD_SECONDS: Final = 10.0
# What is read away of a refused request, in bytes and seconds.
MAX_DISCARDED_BYTES: Final = 16 * 1024 * 1024
DISCARD_SECONDS: Final = 10.0
REFUSED_SECONDS: Final = 2.0
# A connection that is to be closed is cut when the peer takes nothing of the rest of its answer for this long.
STALLED_SECONDS: Final = 30.0
# The same when the gateway stops, which is not to wait; with TLS, closing waits for the peer's goodbye as well.
GOODBYE_SECONDS: Final = 2.0
# What the kernel holds of a stream beside the backlog. Left to itself it takes megabytes for each peer that stalls.
KERNEL_BUFFER_BYTES: Final = 256 * 1024
# websockets reads the handshake once more, with limits of its own.
MAX_HANDSHAKE_LINE: Final = 8000
MAX_HANDSHAKE_LINES: Final = 100


class HttpProtocol(HttpToolsProtocol):
    """One HTTP connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride] - as uvicorn
        """Begins to wait for a request."""
        is_tls = transport.get_extra_info("sslcontext") is not None
        super().connection_made(cast(asyncio.Transport, ClosedOnce(transport)) if is_tls else transport)
        # What came before this chunk of the head that is being read, and what is in this chunk, which may hold more.
        self._head_bytes = 0
        self._chunk_bytes = 0
        self._in_head = True
        self._deadline = Deadline()
        self._discarded: int | None = None
        self._closes_after_request = False
        self._ignores_upgrade = False
        self._is_refused = False
        self._has_body_bytes = False
        # The requests without a whole answer, in order; those behind the first wait for it.
        self._unanswered: deque[Exchange] = deque()
        self._is_streaming = False
        self._patience = STALLED_SECONDS
        self._time_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops all waiting."""
        self._deadline.close()
        super().connection_lost(exc)
        for cycle in self._unanswered:
            # uvicorn tells the last one alone.
            cycle.disconnected = True
            cycle.message_event.set()

    def data_received(self, data: bytes) -> None:
        """Parses what came, or reads it away when the request is refused already."""
        if self._discarded is not None and not self._count_discarded(data):
            return
        if self._is_refused or self._is_streaming:
            return
        self._chunk_bytes = len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self._refuse(errors.malformed("The request is not well-formed HTTP"))
        else:
            if self._in_head and not self._is_refused:
                self._head_bytes += len(data)
                if self._head_bytes > MAX_HEAD_BYTES:
                    self._refuse(_head_too_large())
                elif not self._head_is_timed:
                    self._time_head()

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._in_head = True
        self._head_bytes = 0
        self._has_body_bytes = False
        self._ignores_upgrade = False

    def on_headers_complete(self) -> None:
        """The request's headers are there: its application starts, unless it is refused or started anew."""
        self._in_head = self._head_is_timed = False
        self._deadline.clear()
        if self._head_bytes + self._chunk_bytes > MAX_HEAD_BYTES and self._head_size() > MAX_HEAD_BYTES:
            self._refuse(_head_too_large())
            return
        self.scope["method"] = self.parser.get_method().decode("ascii")
        self.scope["http_version"] = self.parser.get_http_version()
        if self.parser.should_upgrade() and self._ends_http():
            return
        exchange = self._exchange()
        self._unanswered.append(exchange)
        if not exchange.keep_alive and self._has_body() and not self.parser.should_upgrade():
            # Closed by us once the body is here, or has been waited for.
            exchange.keep_alive = True
            self._closes_after_request = True
        last: Any = self.cycle
        self.cycle = exchange
        application: Any = cast(Any, self).app
        if last is None or last.response_complete:
            self._start_asgi_task(exchange, application)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((exchange, application))

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._has_body_bytes = True
        if self._discarded is None and not self._ignores_upgrade and not self._is_refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is here as a whole."""
        if self._ignores_upgrade or self._is_refused:
            return
        if self._discarded is None:
            super().on_message_complete()
            return
        self._discarded = None
        if self._closes_after_request:
            self.transport.close()
        else:
            self._wait_for_next()

    def on_response_complete(self) -> None:
        """The answer is out; the rest of a body that nobody wants is read away."""
        # It holds itself there, and would be left to the garbage collector.
        self._unanswered.popleft().scope["extensions"] = {}
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            self._cut_when_stalled()
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self.cycle.more_body:
            if self.expect_100_continue and not self._has_body_bytes:
                # The client was not asked for the body and will not send it.
                self.transport.close()
                return
            self._discarded = 0
            self._deadline.set(DISCARD_SECONDS, self.transport.close)
        elif self._closes_after_request:
            self.transport.close()
        elif not self._in_head:
            self._wait_for_next()

    def shutdown(self) -> None:
        """Closes the connection once what is asked for is answered: the gateway stops."""
        self._patience = GOODBYE_SECONDS
        super().shutdown()
        if self.transport.is_closing():
            self._cut_when_stalled()

    def timeout_keep_alive_handler(self) -> None:
        """Closes a connection on which no request came for long."""
        super().timeout_keep_alive_handler()
        self._cut_when_stalled()

    @property
    def backlog_bytes(self) -> int:
        """Bytes written that the kernel has not taken yet."""
        return self.transport.get_write_buffer_size()

    def begin_stream(self) -> None:
        """Makes the answer that begins now the last: what the client still sends is read, to see it leave, and dropped.

        It also bounds what the kernel holds.
        """
        self._is_streaming = True
        self._deadline.clear()
        self._unanswered[0].keep_alive = False
        connection: socket.socket | None = self.transport.get_extra_info("socket")
        if connection is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BUFFER_BYTES)

    def abort(self) -> None:
        """Cuts the connection; what the peer has not taken is lost."""
        self.transport.abort()

    def send_400_response(self, msg: str) -> None:
        """In the documented shape, too."""
        self._refuse(errors.malformed(msg))

    def _upgrade(self, rest: bytes) -> None:
        if self._is_refused:
            return
        if self._should_upgrade():
            refusal = self._handshake_refusal()
            if refusal is None:
                self._deadline.close()
                self.handle_websocket_upgrade()
            else:
                self._refuse(refusal)
        elif self._ignores_upgrade:
            # The parser takes what follows for another protocol: the request is put to a fresh one without the header.
            head = [self.parser.get_method(), b" ", self.url, b" HTTP/1.1\r\n"]
            for name, value in self.headers:
                if name not in (b"upgrade", b"http2-settings"):
                    head += [name, b": ", value, b"\r\n"]
            self.parser = httptools.HttpRequestParser(self)
            self._ignores_upgrade = False
            self.data_received(b"".join([*head, b"\r\n", rest]))
        else:
            # CONNECT, which is refused: the connection goes on as before.
            self.parser = httptools.HttpRequestParser(self)
            self.data_received(rest)

    def _exchange(self) -> Exchange:
        """The request, as the application is given it."""
        url = httptools.parse_url(self.url)
        scope: Any = self.scope
        scope["raw_path"] = url.path
        scope["path"] = unquote(url.path.decode("ascii"))
        scope["query_string"] = url.query or b""
        exchange = Exchange(
            scope=scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=scope["http_version"] != "1.0" and self.parser.should_keep_alive(),
            on_response=self.on_response_complete,
        )
        scope["extensions"] = {OUTLET: self, EXCHANGE: exchange}
        return exchange

    def _ends_http(self) -> bool:
        """Whether the parser will stop behind these headers, for another protocol or to read them without `Upgrade`."""
        is_socket = self._should_upgrade()
        self._ignores_upgrade = not is_socket and self.scope["method"] != "CONNECT"
        return is_socket or self._ignores_upgrade

    def _should_upgrade(self) -> bool:
        return super()._should_upgrade() and self.url.partition(b"?")[0] == SOCKET_PATH.encode()

    def _handshake_refusal(self) -> Refusal | None:
        """What is wrong with a handshake, asked here because what follows would answer in another shape."""
        headers = dict(self.headers)
        if self.parser.get_method() != b"GET" or self.parser.get_http_version() != "1.1":
            return errors.malformed("A WebSocket is opened by GET over HTTP/1.1")
        if not headers.get(b"sec-websocket-key") or headers.get(b"sec-websocket-version") != b"13":
            return errors.malformed("A WebSocket needs Sec-WebSocket-Key, and Sec-WebSocket-Version 13")
        lines = [len(name) + len(value) for name, value in self.headers]
        if max(lines) > MAX_HANDSHAKE_LINE or len(lines) > MAX_HANDSHAKE_LINES:
            return errors.malformed("The headers are too many or too large for a WebSocket")
        return None

    def _head_size(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _has_body(self) -> bool:
        return any(
            name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
            for name, value in self.headers
        )

    def _count_discarded(self, data: bytes) -> bool:
        """Whether to go on reading a request that is answered already."""
        assert self._discarded is not None
        self._discarded += len(data)
        if self._discarded > MAX_DISCARDED_BYTES:
            self.transport.close()
        return not self.transport.is_closing()

    def _time_head(self) -> None:
        self._head_is_timed = True
        self._deadline.set(HEAD_SECONDS, self._head_too_late)

    def _wait_for_next(self) -> None:
        self._deadline.set(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def _head_too_late(self) -> None:
        if self._head_bytes:
            self._refuse(errors.too_late("The headers did not arrive in time"))
        else:
            self.transport.close()

    def _refuse(self, refusal: Refusal) -> None:
        """Answers without an application, then closes: how the stream goes on cannot be known."""
        if self._is_refused or self.transport.is_closing():
            return
        self._is_refused = True
        if self._answers_first():
            return
        request_id = request_ids.fresh()
        body = errors.printed(refusal, request_id)
        # uvicorn has no headers before the first request.
        cors = cast(Cors, self.app_state[CORS])
        head = [
            STATUS_LINE[refusal.status],
            printed_defaults(self.server_state.default_headers),
            *(b"%b: %b\r\n" % header for header in protection.DATA + cors.headers(self.headers or [])),
            b"content-type: application/json\r\n",
            b"content-length: %d\r\n" % len(body),
            b"x-request-id: %s\r\n" % request_id.encode(),
            b"connection: close\r\n\r\n",
        ]
        self.transport.write(b"".join([*head, body]))
        # Closed at once, what the client still sends would be answered by a reset that overtakes the answer.
        self._discarded = 0
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._deadline.set(REFUSED_SECONDS, self.transport.close)

    def _answers_first(self) -> bool:
        """Whether requests before the refused one are still to be answered: then closing is the answer to this one."""
        before = list(self._unanswered)
        if before and before[-1].more_body:
            before.pop()
        if before:
            before[-1].keep_alive = False
        elif self._discarded is not None:
            # It was answered before all of it was here.
            self.transport.close()
        return bool(before) or self._discarded is not None

    def _cut_when_stalled(self) -> None:
        """Closing waits until the peer has taken everything; this keeps it from waiting for ever."""
        left = self.backlog_bytes

        def check() -> None:
            if self.backlog_bytes < left:
                self._cut_when_stalled()
            else:
                self.transport.abort()

        self._deadline.set(self._patience, check)


def _head_too_large() -> Refusal:
    return Refusal(400, "validation_error", f"The headers must be at most {MAX_HEAD_BYTES} bytes")

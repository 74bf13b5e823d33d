"""uvicorn's WebSocket protocol, with a way out that many sockets can share: whole frames, one write, no task.

The transport's own buffer is the backlog, so a socket that keeps up costs nothing, and what a slow one holds is known.
"""

import socket
from asyncio import BaseTransport
from collections import deque
from typing import Final

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.protocol import State

from ao_gateway.frames import Cancellable
from ao_gateway.sockets import SINK

# A peer that does not take the close frame within this is cut off; sooner when the gateway stops, which is not to wait.
CLOSE_SECONDS: Final = 5.0
RESTART_SECONDS: Final = 2.0
# What the kernel holds beside the backlog. Left to itself it takes megabytes for each peer that does not read.
KERNEL_BUFFER_BYTES: Final = 256 * 1024
RESTART: Final = 1012
NOT_UTF_8: Final = 1007
MAX_REASON_BYTES: Final = 123
# Writes are counted in pieces of about this size: a note of every small one would outweigh what it tells.
COUNTED_BYTES: Final = 16 * 1024


class SocketProtocol(WebSocketsSansIOProtocol):
    """One WebSocket connection; the application finds it in its scope as a `frames.Sink`."""

    def connection_made(self, transport: BaseTransport) -> None:
        """Takes over the connection from HTTP."""
        super().connection_made(transport)
        connection: socket.socket | None = transport.get_extra_info("socket")
        if connection is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BUFFER_BYTES)
        self._written = 0
        # Where each piece of what was written ends, in bytes since the start, and how many messages it holds.
        self._pieces: deque[tuple[int, int]] = deque()
        self._piece_start = 0
        self._messages = 0
        self._watched: Cancellable | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends what runs for this socket alone."""
        super().connection_lost(exc)
        if self._watched is not None:
            self._watched.cancel()
            self._watched = None

    def send_receive_event_to_app(self) -> None:
        """Hands over a message. Text that is not UTF-8 closes the socket, as in uvicorn, but without a traceback in the
        log: it is the client's fault.
        """
        if self.curr_msg_data_type == "text" and not self.close_sent:
            try:
                b"".join(self.frames).decode()
            except UnicodeDecodeError:
                self.frames = []
                self.conn.send_close(NOT_UTF_8)
                self.handle_parser_exception()
                return
        super().send_receive_event_to_app()

    async def run_asgi(self) -> None:
        """Runs the application."""
        extensions = self.scope.get("extensions")
        assert extensions is not None
        extensions[SINK] = self  # pyright: ignore[reportArgumentType] - an extension of our own, not a dict
        await super().run_asgi()

    @property
    def backlog_bytes(self) -> int:
        """Bytes that the kernel has not taken yet."""
        return self.transport.get_write_buffer_size()

    @property
    def backlog_messages(self) -> int:
        """Messages among them, those of a piece that is partly taken included."""
        taken = self._written - self.backlog_bytes
        while self._pieces and self._pieces[0][0] <= taken:
            self._messages -= self._pieces.popleft()[1]
        return self._messages

    @property
    def is_closed(self) -> bool:
        """Whether nothing can be sent any more."""
        return self.close_sent or self.disconnected or self.transport.is_closing() or self.conn.state is not State.OPEN

    def write(self, frames: bytes, messages: int) -> None:
        """Sends whole frames in one write."""
        if self.is_closed:
            return
        self._messages += messages
        if self._pieces and self._written + len(frames) <= self._piece_start + COUNTED_BYTES:
            messages += self._pieces.pop()[1]
        else:
            self._piece_start = self._written
        self._written += len(frames)
        self._pieces.append((self._written, messages))
        self.transport.write(frames)

    def end(self, code: int, reason: str) -> None:
        """Sends a close frame, then waits for the peer's, but not for long."""
        if self.is_closed:
            return
        self.stop_keepalive()
        reason = reason.encode()[:MAX_REASON_BYTES].decode(errors="ignore")
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self.conn.send_close(code, reason)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        wait = RESTART_SECONDS if code == RESTART else CLOSE_SECONDS
        self.close_timer = self.loop.call_later(wait, self.transport.abort)
        if self._watched is not None:
            self._watched.cancel()

    def on_closed(self, call: Cancellable) -> None:
        """Cancels the call when the socket is closed."""
        self._watched = call
        if self.is_closed:
            call.cancel()

    async def drained(self) -> None:
        """Waits until the buffer is nearly empty."""
        await self.writable.wait()

    def shutdown(self) -> None:
        """Tells the peer to come back."""
        if self.handshake_complete:
            self.end(RESTART, "restart")
        else:
            super().shutdown()

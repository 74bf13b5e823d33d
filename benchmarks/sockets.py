"""`python -m benchmarks.sockets PORT KEY SOCKETS EVENTS`: WebSockets that count frames, by their headers alone.

A process of its own, so that a figure does not measure whoever listens.
"""

import json
import secrets
import selectors
import socket
import sys
import time
from base64 import b64encode
from typing import Final

LISTEN_SECONDS: Final = 45.0
READ_BYTES: Final = 1 << 20


class Socket:
    """One WebSocket that is subscribed to the events of all tasks."""

    def __init__(self, port: int, key: str) -> None:
        self.frames = 0
        # Bytes of the frame before that are still to come, and the beginning of a header that was cut in two.
        self._left = 0
        self._header = b""
        self.connection = socket.create_connection(("127.0.0.1", port))
        self._greet(port, key)

    def read(self, buffer: bytearray) -> bool:
        """Counts the frames that begin in what has come; False at the end."""
        size = self.connection.recv_into(buffer)
        if self._header:
            data = self._header + buffer[:size]
            self._count(data, len(data))
        else:
            self._count(buffer, size)
        return size > 0

    def _count(self, data: bytes | bytearray, size: int) -> None:
        at, frames = self._left, 0
        self._left, self._header = 0, b""
        while at < size:
            # Two bytes of header for less than 126 bytes, four up to 64 KiB; the server masks nothing.
            length = data[at + 1] if at + 1 < size else 126
            if length < 126:
                at += 2 + length
            elif at + 4 <= size:
                assert length == 126, "a longer frame than any event"
                at += 4 + (data[at + 2] << 8 | data[at + 3])
            else:
                self._header = bytes(data[at:size])
                break
            frames += 1
        self._left = max(0, at - size)
        self.frames += frames

    def _greet(self, port: int, key: str) -> None:
        nonce = b64encode(secrets.token_bytes(16)).decode()
        lines = (
            "GET /v1/ws HTTP/1.1",
            f"Host: 127.0.0.1:{port}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {nonce}",
            "Sec-WebSocket-Version: 13",
            f"Authorization: Bearer {key}",
            "",
            "",
        )
        self.connection.sendall("\r\n".join(lines).encode())
        answered = b""
        while b"\r\n\r\n" not in answered:
            answered += self.connection.recv(READ_BYTES)
        subscribe = json.dumps({"type": "subscribe", "channel": "task_events"}).encode()
        self.connection.sendall(bytes((0x81, 0x80 | len(subscribe), 0, 0, 0, 0)) + subscribe)
        while b'"subscribed"' not in answered or not answered.endswith(b"}"):
            answered += self.connection.recv(READ_BYTES)


def listen(port: int, key: str, count: int, events: int) -> None:
    """Prints how many frames came to all sockets, and when the last did."""
    buffer = bytearray(READ_BYTES)
    with selectors.DefaultSelector() as selector:
        sockets = [Socket(port, key) for _ in range(count)]
        for each in sockets:
            selector.register(each.connection, selectors.EVENT_READ, each)
        print("listening", flush=True)
        deadline = time.monotonic() + LISTEN_SECONDS
        while selector.get_map() and time.monotonic() < deadline:
            for ready, _ in selector.select(1.0):
                heard: Socket = ready.data
                if not heard.read(buffer) or heard.frames >= events:
                    selector.unregister(heard.connection)
    print(f"heard {sum(each.frames for each in sockets)} {time.monotonic()}", flush=True)


if __name__ == "__main__":
    listen(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))

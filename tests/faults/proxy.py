"""A TCP proxy whose connections a test can cut, or turn into a hole that swallows what one side says."""

import socket
import struct
import threading
from typing import Final, Self

CHUNK: Final = 65536
RESET: Final = struct.pack("ii", 1, 0)


class Proxy:
    """Listens on a port of its own in front of a local port."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._swallow_to_server = threading.Event()
        self._swallow_to_client = threading.Event()
        self._closed = False

    @property
    def address(self) -> str:
        """HOST:PORT to connect to."""
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()
        return self

    def __exit__(self, *exception: object) -> None:
        # Closing a socket does not wake a thread that accepts on it; a last connection does.
        self._closed = True
        socket.create_connection(self._listener.getsockname()).close()
        self._accepting.join()
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """Resets every connection; new ones are let through."""
        pairs, self._pairs = self._pairs, []
        for end in [end for pair in pairs for end in pair]:
            try:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # It has ended by itself.
            end.close()

    def silence(self, *, to_server: bool = False, to_client: bool = False) -> None:
        """From now on swallows what is said in these directions, on old and new connections."""
        for event, wanted in ((self._swallow_to_server, to_server), (self._swallow_to_client, to_client)):
            event.set() if wanted else event.clear()

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            if self._closed:
                client.close()
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._target), timeout=5)
            except OSError:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                client.close()
                continue
            server.settimeout(None)
            self._pairs.append((client, server))
            for source, target, swallow in (
                (client, server, self._swallow_to_server),
                (server, client, self._swallow_to_client),
            ):
                threading.Thread(target=_pump, args=(source, target, swallow), daemon=True).start()


def _pump(source: socket.socket, target: socket.socket, swallow: threading.Event) -> None:
    try:
        while data := source.recv(CHUNK):
            if not swallow.is_set():
                target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # A cut connection: its threads end.

"""Ports that are ours from before the first start of a half until after its last."""

import errno
import socket
import sys
from collections.abc import Sequence
from typing import Final

# How often to look for a port that is free on every address.
TRIES: Final = 20
_NOT_HERE: Final = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT})
_LOOPBACKS: Final = ("127.0.0.1", "::1")


class PortTaken(Exception):
    """An address that cannot be listened on; the text is for the user."""


class Reservation:
    """A port held for a child: bound, never listened on.

    On Linux both may bind it (SO_REUSEADDR), so nobody else gets it while the child is being started again: neither as
    a free port nor as the local end of a connection. Elsewhere a child could not bind it as well, so the port is only
    looked up.
    """

    def __init__(self, addresses: Sequence[str], port: int) -> None:
        """Port 0 is a free one, the same on all addresses. PortTaken when one of them cannot be had."""
        self._sockets: list[socket.socket] = []
        for left in reversed(range(TRIES)):
            try:
                self.port = self._bind(addresses, port)
            except OSError as error:
                self.close()
                if port != 0 or left == 0 or error.errno != errno.EADDRINUSE:
                    raise PortTaken(_reason(addresses[0], port, error)) from None
            else:
                break
        if sys.platform != "linux":
            self.close()

    def close(self) -> None:
        """Gives the port up."""
        while self._sockets:
            self._sockets.pop().close()

    def _bind(self, addresses: Sequence[str], port: int) -> int:
        for address in addresses:
            family, _, _, _, target = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
            held = socket.socket(family, socket.SOCK_STREAM)
            self._sockets.append(held)
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                held.bind((target[0], port))
            except OSError as error:
                # A machine without IPv6 has no ::1.
                if error.errno not in _NOT_HERE or address == addresses[0]:
                    raise
            else:
                port = held.getsockname()[1]
        return port


def rest_addresses(host: str) -> Sequence[str]:
    """The addresses that REST listens on: either loopback means both, as `localhost` is ::1 first on many machines."""
    return _LOOPBACKS if host in ("127.0.0.1", "localhost") else (host,)


def grpc_addresses(host: str) -> Sequence[str]:
    """The addresses that gRPC listens on."""
    return _LOOPBACKS if host == "localhost" else (host,)


def _reason(host: str, port: int, error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return f"--host {host} is not an address of this machine"
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is taken by another program"
    return f"cannot listen on {host} port {port}: {error.strerror}"

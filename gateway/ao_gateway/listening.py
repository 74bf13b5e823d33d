"""The sockets that are listened on, made before anything else so that a taken port is known at once."""

import errno
import socket
from typing import Final

from agent_orchestration.environment import CannotStart

BACKLOG: Final = 2048
# With port 0, how often to look for a port that is free on both loopback addresses.
TRIES: Final = 20
_NO_IPV6: Final = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT}
_BOTH_LOOPBACKS: Final = frozenset({"127.0.0.1", "localhost"})


def listen(host: str, port: int) -> list[socket.socket]:
    """Sockets that listen. CannotStart when the address cannot be had.

    `127.0.0.1` and `localhost` are both loopback addresses, where the machine has IPv6: on many machines `localhost`
    is ::1 first. Port 0 is a free port, the same on both.
    """
    try:
        if host in _BOTH_LOOPBACKS:
            return _both_loopbacks(port)
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICSERV
        )[0]
        return [_listening(family, (str(address[0]), port))]
    except socket.gaierror:
        raise CannotStart(f"--host {host} is not an address of this machine") from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise CannotStart(f"port {port} on {host} is taken by another program") from None
        raise CannotStart(f"cannot listen on {host} port {port}: {error.strerror}") from None


def url(listening: socket.socket, scheme: str = "http") -> str:
    """The REST base URL at a socket."""
    host, port = listening.getsockname()[:2]
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}/v1"


def _both_loopbacks(port: int) -> list[socket.socket]:
    for attempt in range(TRIES):
        first = _listening(socket.AF_INET, ("127.0.0.1", port))
        try:
            second = _listening(socket.AF_INET6, ("::1", first.getsockname()[1]))
        except OSError as error:
            if error.errno in _NO_IPV6:
                return [first]
            first.close()
            if error.errno != errno.EADDRINUSE or port != 0 or attempt == TRIES - 1:
                raise
        else:
            return [first, second]
    raise AssertionError("unreachable")


def _listening(family: int, address: tuple[str, int]) -> socket.socket:
    # asyncio sends small answers at once only where the protocol is named.
    created = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        created.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # The wildcard means both families; anything else is IPv6 alone.
            created.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(address[0] != "::"))
        created.bind(address)
        created.listen(BACKLOG)
        created.setblocking(False)
    except BaseException:
        created.close()
        raise
    return created

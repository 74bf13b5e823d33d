"""Whether a server is up at all: a connect that is refused is the one sure sign that none is."""

import asyncio
import errno
import socket
from contextlib import suppress
from typing import Final

PROBE_SECONDS: Final = 3.0
# This machine has no such address family: nobody can be listening there for us.
_NO_SUCH_FAMILY: Final = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})


async def is_refused(host: str, port: int) -> bool:
    """True when every address of the host refuses the connection; False when any accepts, is silent or unknown."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            answers = await asyncio.gather(*(_refuses(family, address) for family, _, _, _, address in found))
    except (OSError, TimeoutError):
        return False
    return any(answers) and all(answer is not False for answer in answers)


async def _refuses(family: int, address: tuple[str | int | bytes, ...]) -> bool | None:
    """Whether this address refuses; None when it does not count."""
    try:
        probe = socket.socket(family, socket.SOCK_STREAM)
    except OSError:
        return None
    with probe:
        probe.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(probe, address)
        except ConnectionRefusedError:
            return True
        except OSError as error:
            return None if error.errno in _NO_SUCH_FAMILY else False
        with suppress(OSError):
            probe.shutdown(socket.SHUT_RDWR)
    return False

"""Whether a server is up at all: a connect that is refused is the one sure sign that none is."""

import asyncio
from contextlib import suppress

PROBE_SECONDS = 2.0


async def is_refused(host: str, port: int) -> bool:
    """True when every address of the host refuses the connection; False when any accepts, is silent or unknown."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=1)
    except OSError:
        return False
    addresses = {address[4][0] for address in found}
    refusals = await asyncio.gather(*(_refuses(str(address), port) for address in addresses))
    return bool(refusals) and all(refusals)


async def _refuses(address: str, port: int) -> bool:
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            _, writer = await asyncio.open_connection(address, port)
    except ConnectionRefusedError:
        return True
    except (OSError, TimeoutError):
        return False
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    return False

"""What an orchestrator or load balancer asks: whether the process lives, and whether it can do its work."""

import asyncio
from typing import Final

from ao_gateway.errors import unavailable
from ao_gateway.rest import Answer, Request, Serve

_OK: Final = b'{"status":"ok"}'


async def livez(request: Request) -> Answer:
    """The process serves."""
    return Answer(200, _OK)


def readyz(connected: asyncio.Event) -> Serve:
    """Whether the server is known to answer; Refusal with 503 while it is not."""

    async def serve(request: Request) -> Answer:
        if not connected.is_set():
            raise unavailable("The server cannot be reached")
        return Answer(200, _OK)

    return serve

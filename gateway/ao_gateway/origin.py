"""Where a client reached the gateway, as it says itself: scheme, host and port."""

import re
from typing import Final

from ao_gateway.addresses import client_scheme
from ao_gateway.rest import Request

_HOST: Final = re.compile(rb"(?:[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")


def of(request: Request) -> str | None:
    """`http://HOST:PORT`; None when the Host header names what could not be a host."""
    host = dict(request.headers).get(b"host", b"")
    return f"{client_scheme(request.scope)}://{host.decode()}" if _HOST.fullmatch(host) else None

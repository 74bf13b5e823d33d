"""A TLS transport that may be closed twice.

asyncio's own loses its connection with the second `close`: what is asked of it then fails, and `abort` cuts nothing.
"""

import asyncio
from typing import Any, Final


class ClosedOnce:
    """Stands for an `asyncio.Transport`; a second `close` does nothing."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport: Final = transport
        self.write = transport.write
        self.is_closing = transport.is_closing

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def close(self) -> None:
        """Closes the connection once what was written is sent and the peer has said goodbye."""
        if not self._transport.is_closing():
            self._transport.close()

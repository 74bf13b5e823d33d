"""Calls that the gateway refuses itself, told to the server before they are answered: for the audit log."""

from functools import partial
from typing import Any, Final

import structlog

from ao_gateway import bindings
from ao_gateway.bindings import Binding
from ao_gateway.errors import Refusal
from ao_gateway.relay import Relay
from ao_gateway.rest import Request, Told

log: Any = structlog.get_logger("ao_gateway.refusals")

# What is wrong with the call itself. Of limits and of want of room the server hears nothing: it would only be more.
STATUSES: Final = (400, 403, 408, 413, 415)
TIMEOUT_SECONDS: Final = 10.0


class Refusals:
    """Tells the server."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay

    def of(self, binding: Binding) -> Told | None:
        """What tells of refused calls of a route. None for reads, of which there is no record."""
        return None if binding.http_method == "GET" else partial(self._tell, binding)

    async def _tell(self, binding: Binding, request: Request, refusal: Refusal) -> None:
        if refusal.status not in STATUSES:
            return
        named = bindings.message_class(binding.request)(**dict(zip(binding.parameters, request.values, strict=True)))
        metadata = request.metadata() | {"agent-orchestration-refusal": refusal.code}
        try:
            await self._relay.call(
                binding.rpc, named.SerializeToString(), metadata, timeout=TIMEOUT_SECONDS, is_read=False
            )
        except Refusal as answer:
            # As it should be. Only where the server did not take the call is there no record.
            if answer.status in (408, 503):
                log.error("refusal_not_recorded", request_id=request.id, rpc=binding.rpc, reason=answer.code)

"""Rate limits over gRPC, of users who connect to the server itself. A gateway counts the calls that it passes on."""

from collections.abc import Mapping
from typing import Any, Final

from agent_orchestration.rate_limits import Decision, RateLimits
from ao_server.engine.access import Access, Principal
from ao_server.errors import RateLimited

# With the gateway's own credential, on streams that it opens under a user's.
GATEWAY_KEY: Final = "agent-orchestration-gateway"


class DirectCalls:
    """Counts calls under their credential, and tells in their metadata what is left."""

    def __init__(self, access: Access, limits: RateLimits) -> None:
        self._access = access
        self._limits = limits

    async def count(self, context: Any, metadata: Mapping[str, str], principal: Principal, *, is_allowed: bool) -> None:
        """Counts a call that its credential is good for. RateLimited when there is no room for it."""
        if principal.is_gateway or self._access.is_gateway(metadata.get(GATEWAY_KEY, "")):
            return
        asked = principal.credential_id, principal.per_hour, principal.per_minute
        decision = await (self._limits.take(*asked) if is_allowed else self._limits.look(*asked))
        context.set_trailing_metadata(_metadata(decision))
        if decision.is_refused:
            raise RateLimited(decision.message, retry_after=decision.retry_after)


def _metadata(decision: Decision) -> tuple[tuple[str, str], ...]:
    """What is left of the hour; nothing where the hour has no limit."""
    if not decision.limit:
        return ()
    return (
        ("x-ratelimit-limit", str(decision.limit)),
        ("x-ratelimit-remaining", str(decision.remaining)),
        ("x-ratelimit-reset", str(decision.reset)),
    )

"""Rate limits over HTTP: calls counted under their credential, and the headers that tell what is left."""

from agent_orchestration.rate_limits import Decision, RateLimits
from ao_gateway.access import Principal
from ao_gateway.errors import Headers


async def counted(limits: RateLimits, principal: Principal) -> Decision:
    """Counts a call, if there is room for one."""
    return await limits.take(principal.credential_id, principal.per_hour, principal.per_minute)


async def left(limits: RateLimits, principal: Principal) -> Decision:
    """What is left, for an answer to a call that is not counted."""
    return await limits.look(principal.credential_id, principal.per_hour, principal.per_minute)


def headers(decision: Decision) -> Headers:
    """What is left of the hour; nothing where the hour has no limit."""
    if not decision.limit:
        return []
    return [
        (b"x-ratelimit-limit", b"%d" % decision.limit),
        (b"x-ratelimit-remaining", b"%d" % decision.remaining),
        (b"x-ratelimit-reset", b"%d" % decision.reset),
    ]

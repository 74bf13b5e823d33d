"""`python -m benchmarks.unchecked server|gateway ...`: that half without credentials, scopes and rate limits.

Everything else is the product's: whoever comes is the admin of the default project.
"""

import sys
from typing import Any, Final

from agent_orchestration.scopes import ADMIN
from ao_gateway import errors
from ao_gateway.command import gateway
from ao_gateway.rest import Answer, Request, Rest
from ao_server.api import calls
from ao_server.api.admission import Metadata
from ao_server.api.methods import Methods
from ao_server.command import server
from ao_server.engine import projects
from ao_server.engine.access import Principal

ANYONE: Final = Principal("key_anyone", projects.DEFAULT, scopes=frozenset({ADMIN}))


async def _answer(self: Any, request: Request) -> Answer | None:
    """In the place of `Rest._answer`."""
    found = self._paths.find(request.scope["raw_path"])
    if found is None:
        raise errors.not_found()
    endpoint = found.targets.get("GET" if request.is_head else request.scope["method"])
    if endpoint is None:
        raise errors.method_not_allowed(found.targets)
    request.values = found.values
    return await endpoint.serve(request)


_identify: Final[Any] = getattr(Methods, "_identify")  # noqa: B009 - it is nobody else's business
_admit: Final[Any] = getattr(Methods, "_admit")  # noqa: B009


async def _identify_anyone(
    self: Any, method: str, metadata: Metadata, timeout: float | None, *parking: Any, peer: str | None = None
) -> calls.Call:
    """In the place of `Methods._identify`. A gateway's own calls come from a peer. Nothing waits here."""
    if peer is not None:
        return await _identify(self, method, metadata, timeout, *parking, peer=peer)
    return calls.Call(ANYONE, metadata["x-request-id"], timeout)


async def _admit_anyone(self: Any, method: str, call: calls.Call, metadata: Metadata, context: Any) -> None:
    """In the place of `Methods._admit`."""
    if context is not None:
        await _admit(self, method, call, metadata, context)


if __name__ == "__main__":
    setattr(Rest, "_answer", _answer)  # noqa: B010
    setattr(Methods, "_identify", _identify_anyone)  # noqa: B010
    setattr(Methods, "_admit", _admit_anyone)  # noqa: B010
    {"server": server, "gateway": gateway}[sys.argv.pop(1)]()

"""What credentials may do. Each RPC for users names the scope that it needs, as an option in the protos."""

from collections.abc import Collection
from typing import Final

# Holds all others.
ADMIN: Final = "admin"
RUNNER: Final = "runner:connect"
SCOPES: Final = (
    "agents:read",
    "agents:write",
    "tasks:read",
    "tasks:write",
    "workflows:read",
    "workflows:write",
    "monitoring:read",
    RUNNER,
    ADMIN,
)


def holds(held: Collection[str], needed: str) -> bool:
    """Whether a credential with the held scopes may do what needs this one."""
    return needed in held or ADMIN in held


def lacking(needed: str) -> str:
    """What a credential is told that does not hold a scope."""
    return f"the credential does not have the scope {needed}"

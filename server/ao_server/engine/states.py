"""The state machines: which event leads from which status to which. There is no other place that says so."""

from typing import Final

TASK: Final[dict[tuple[str, str], str]] = {
    ("pending", "claim"): "running",
    ("running", "complete"): "completed",
    ("running", "fail"): "failed",
    ("running", "cancel"): "cancelled",
    ("running", "requeue"): "pending",
}

AGENT: Final[dict[tuple[str, str], str]] = {
    ("initializing", "connect"): "active",
    ("inactive", "connect"): "active",
    ("error", "connect"): "error",
    ("active", "connect"): "active",
    ("active", "disconnect"): "inactive",
    ("error", "disconnect"): "inactive",
    ("inactive", "disconnect"): "inactive",
    ("initializing", "disconnect"): "initializing",
}

FINAL: Final = frozenset({"completed", "failed", "cancelled"})


class IllegalTransition(Exception):
    """A decision asked for a transition that the table does not have: a fault of ours, never of a client."""


def task_after(status: str, event: str) -> str:
    """The status after an event."""
    try:
        return TASK[status, event]
    except KeyError:
        raise IllegalTransition(f"a {status} task cannot {event}") from None


def agent_after(status: str, event: str) -> str:
    """The status after an event."""
    return AGENT[status, event]

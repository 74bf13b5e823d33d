"""The state machines: which event leads from which status to which. There is no other place that says so."""

from typing import Final

TASK: Final[dict[tuple[str, str], str]] = {
    ("pending", "claim"): "running",
    ("pending", "cancel"): "cancelled",
    # Nobody can run it.
    ("pending", "fail"): "failed",
    ("running", "complete"): "completed",
    ("running", "fail"): "failed",
    ("running", "cancel"): "cancelled",
    ("running", "requeue"): "pending",
}

FINAL: Final = frozenset({"completed", "failed", "cancelled"})

SERVING: Final = "serving"
PAUSED: Final = "paused"
DRAINING: Final = "draining"


class IllegalTransition(Exception):
    """A decision asked for a transition that the table does not have: a fault of ours, never of a client."""


def task_after(status: str, event: str) -> str:
    """The status after an event."""
    try:
        return TASK[status, event]
    except KeyError:
        raise IllegalTransition(f"a {status} task cannot {event}") from None


def agent_status(*, mode: str, is_broken: bool, is_present: bool, was_seen: bool) -> str:
    """An agent's status. It has no history of its own: what holds decides, the first of these that does.

    `is_broken`: its processes die while they work. `is_present`: one is connected or within its lease. `was_seen`: one
    has been.
    """
    if mode != SERVING:
        return "inactive"
    if is_broken:
        return "error"
    if is_present:
        return "active"
    return "inactive" if was_seen else "initializing"

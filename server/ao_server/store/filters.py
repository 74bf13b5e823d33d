"""What a list of tasks can be narrowed by."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TaskFilter:
    """Which tasks a list shows. Ids are compared with `id_from` (inclusive) and `id_before` (exclusive): an id begins
    with its creation time. A label is a key and its value, or None for any value; all must match.
    """

    agent_id: str | None = None
    status: str | None = None
    priority: int | None = None
    type: str | None = None
    agent_type: str | None = None
    id_from: str | None = None
    id_before: str | None = None
    labels: Sequence[tuple[str, str | None]] = ()

    @property
    def is_counted(self) -> bool:
        """Whether the counters know how many match."""
        return self.id_from is None and self.id_before is None and not self.labels

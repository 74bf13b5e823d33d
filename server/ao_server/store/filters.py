"""What a list of tasks can be narrowed by."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

# The columns whose values a list can be narrowed to, in the order in which shapes name them.
DIMENSIONS: Final = ("agent_id", "agent_type", "type", "priority", "status")
Label = tuple[str, str | None]


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
    labels: Sequence[Label] = ()
    # The execution whose steps they are of: few enough to be looked at one by one.
    execution_id: str | None = None

    @property
    def wanted(self) -> dict[str, Any]:
        """The wanted values of columns, by column."""
        values = (self.agent_id, self.agent_type, self.type, self.priority, self.status)
        return {name: value for name, value in zip(DIMENSIONS, values, strict=True) if value is not None}

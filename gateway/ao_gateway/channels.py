"""The channels of the WebSocket: which events each carries."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from agent_orchestration.v1 import events_pb2
from ao_gateway import scalars

_SYSTEM_TYPES: Final = frozenset({"agent_status_change", "task_completed", "system_alert"})

NAMES: Final = tuple(scalars.words_of(events_pb2.Channel.DESCRIPTOR))
AGENT_EVENTS: Final = "agent_events"
SYSTEM_EVENTS: Final = "system_events"
TASK_EVENTS: Final = "task_events"
WORKFLOW_EVENTS: Final = "workflow_events"
# The ids that narrow a channel.
NARROWED_BY: Final[Mapping[str, tuple[str, ...]]] = {
    AGENT_EVENTS: ("agent_id",),
    TASK_EVENTS: ("task_id",),
    WORKFLOW_EVENTS: ("workflow_id", "execution_id"),
}
IDS: Final = tuple(name for names in NARROWED_BY.values() for name in names)


class Subject(Protocol):
    """What an event is about: its type, and its agent, task, workflow and execution if it has them."""

    @property
    def type(self) -> str: ...  # noqa: D102
    @property
    def agent_id(self) -> str | None: ...  # noqa: D102
    @property
    def task_id(self) -> str | None: ...  # noqa: D102
    @property
    def workflow_id(self) -> str | None: ...  # noqa: D102
    @property
    def execution_id(self) -> str | None: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Filter:
    """What one subscription wants to hear of."""

    channel: str
    agent_id: str | None = None
    task_id: str | None = None
    workflow_id: str | None = None
    execution_id: str | None = None

    def matches(self, event: Subject) -> bool:
        """Whether the channel carries the event to this subscription."""
        if self.channel == AGENT_EVENTS:
            return event.agent_id is not None and self.agent_id in (None, event.agent_id)
        if self.channel == TASK_EVENTS:
            return event.task_id is not None and self.task_id in (None, event.task_id)
        if self.channel == WORKFLOW_EVENTS:
            return (
                event.execution_id is not None
                and event.type.startswith("workflow_")
                and self.workflow_id in (None, event.workflow_id)
                and self.execution_id in (None, event.execution_id)
            )
        return event.type in _SYSTEM_TYPES

    @property
    def ids(self) -> dict[str, str]:
        """The ids that narrow it, as the client gave them."""
        return {name: value for name in IDS if (value := getattr(self, name)) is not None}

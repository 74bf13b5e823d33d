"""The channels of the WebSocket: which events each carries."""

from dataclasses import dataclass
from typing import Final, Protocol

from agent_orchestration.v1 import events_pb2
from ao_gateway import scalars

_SYSTEM_TYPES: Final = frozenset({"agent_status_change", "task_completed", "system_alert"})

NAMES: Final = tuple(scalars.words_of(events_pb2.Channel.DESCRIPTOR))
AGENT_EVENTS: Final = "agent_events"
SYSTEM_EVENTS: Final = "system_events"
TASK_EVENTS: Final = "task_events"
# The id that narrows a channel.
NARROWED_BY: Final = {AGENT_EVENTS: "agent_id", TASK_EVENTS: "task_id"}


class Subject(Protocol):
    """What an event is about: its type, and its agent and task if it has them."""

    @property
    def type(self) -> str: ...  # noqa: D102
    @property
    def agent_id(self) -> str | None: ...  # noqa: D102
    @property
    def task_id(self) -> str | None: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Filter:
    """What one subscription wants to hear of."""

    channel: str
    agent_id: str | None = None
    task_id: str | None = None

    def matches(self, event: Subject) -> bool:
        """Whether the channel carries the event to this subscription."""
        if self.channel == AGENT_EVENTS:
            return event.agent_id is not None and self.agent_id in (None, event.agent_id)
        if self.channel == TASK_EVENTS:
            return event.task_id is not None and self.task_id in (None, event.task_id)
        return event.type in _SYSTEM_TYPES

    @property
    def ids(self) -> dict[str, str]:
        """The ids that narrow it, as the client gave them."""
        given = {"agent_id": self.agent_id, "task_id": self.task_id}
        return {name: value for name, value in given.items() if value is not None}

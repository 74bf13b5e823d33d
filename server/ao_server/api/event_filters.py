"""Which events a watcher hears of, and on which of its channels."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal

from agent_orchestration.v1 import events_pb2, monitoring_pb2
from ao_server.errors import Invalid
from ao_server.store import rows

_Id = Literal["agent_id", "task_id", "workflow_id", "execution_id"]

SYSTEM_EVENTS: Final = frozenset({"agent_status_change", "task_completed", "system_alert"})

# Which events a channel carries when no id narrows it.
_CARRIES: Final[Mapping[int, Callable[[rows.Event], bool]]] = {
    events_pb2.CHANNEL_AGENT_EVENTS: lambda row: row.agent_id is not None,
    events_pb2.CHANNEL_SYSTEM_EVENTS: lambda row: row.type in SYSTEM_EVENTS,
    events_pb2.CHANNEL_TASK_EVENTS: lambda row: row.task_id is not None,
    events_pb2.CHANNEL_WORKFLOW_EVENTS: lambda row: row.execution_id is not None and row.type.startswith("workflow_"),
}
# The channel that each id narrows.
_NARROWS: Final[Mapping[_Id, events_pb2.Channel.ValueType]] = {
    "agent_id": events_pb2.CHANNEL_AGENT_EVENTS,
    "task_id": events_pb2.CHANNEL_TASK_EVENTS,
    "workflow_id": events_pb2.CHANNEL_WORKFLOW_EVENTS,
    "execution_id": events_pb2.CHANNEL_WORKFLOW_EVENTS,
}
_NARROWED_BY: Final[Mapping[int, Sequence[_Id]]] = {
    channel: [name for name, narrowed in _NARROWS.items() if narrowed == channel] for channel in _CARRIES
}


def of(request: monitoring_pb2.WatchEventsRequest) -> list[events_pb2.EventFilter]:
    """The filters of a request, the flat one included. Invalid when an id does not narrow its channel."""
    filters = [*request.filters]
    flat = events_pb2.EventFilter()
    for name in _NARROWS:
        if request.HasField(name):
            setattr(flat, name, getattr(request, name))
    if request.HasField("channel"):
        flat.channel = request.channel
        filters.append(flat)
    for each in [flat, *request.filters]:
        for name, channel in _NARROWS.items():
            if each.HasField(name) and each.channel != channel:
                raise Invalid.field(name, f"narrows {_word(channel)} alone")
    return filters


def channel(row: rows.Event, filters: Sequence[events_pb2.EventFilter]) -> int | None:
    """The channel of the first filter that matches; unspecified without filters; None when none matches."""
    if not filters:
        return events_pb2.CHANNEL_UNSPECIFIED
    return next((each.channel for each in filters if _matches(row, each)), None)


def _matches(row: rows.Event, wanted: events_pb2.EventFilter) -> bool:
    channel = wanted.channel
    if not _CARRIES[channel](row):
        return False
    # Of every event for every watcher: a loop is faster than `all`.
    for name in _NARROWED_BY[channel]:
        if wanted.HasField(name) and getattr(wanted, name) != getattr(row, name):
            return False
    return True


def _word(channel: events_pb2.Channel.ValueType) -> str:
    return events_pb2.Channel.Name(channel).removeprefix("CHANNEL_").lower()

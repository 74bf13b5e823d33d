"""Which events a watcher hears of, and on which of its channels."""

from collections.abc import Callable, Sequence
from typing import Final

from agent_orchestration.v1 import events_pb2, monitoring_pb2
from ao_server.errors import Invalid
from ao_server.store import rows

SYSTEM_EVENTS: Final = frozenset({"agent_status_change", "task_completed", "system_alert"})


def of(request: monitoring_pb2.WatchEventsRequest) -> list[events_pb2.EventFilter]:
    """The filters of a request, the flat one included. Invalid when an id does not narrow its channel."""
    filters = [*request.filters]
    flat = events_pb2.EventFilter()
    for name in ("agent_id", "task_id"):
        if request.HasField(name):
            setattr(flat, name, getattr(request, name))
    if request.HasField("channel"):
        flat.channel = request.channel
        filters.append(flat)
    for each in [flat, *request.filters]:
        for name in ("agent_id", "task_id"):
            if each.HasField(name) and _NARROWED_BY.get(each.channel) != name:
                raise Invalid.field(name, "narrows agent_events by agent_id and task_events by task_id, nothing else")
    return filters


def channel(row: rows.Event, filters: Sequence[events_pb2.EventFilter]) -> int | None:
    """The channel of the first filter that matches; unspecified without filters; None when none matches."""
    if not filters:
        return events_pb2.CHANNEL_UNSPECIFIED
    return next((each.channel for each in filters if _MATCHES[each.channel](row, each)), None)


def _agent_event(row: rows.Event, wanted: events_pb2.EventFilter) -> bool:
    return row.agent_id is not None and (not wanted.HasField("agent_id") or wanted.agent_id == row.agent_id)


def _system_event(row: rows.Event, wanted: events_pb2.EventFilter) -> bool:
    return row.type in SYSTEM_EVENTS


def _task_event(row: rows.Event, wanted: events_pb2.EventFilter) -> bool:
    return row.task_id is not None and (not wanted.HasField("task_id") or wanted.task_id == row.task_id)


_MATCHES: dict[int, Callable[[rows.Event, events_pb2.EventFilter], bool]] = {
    events_pb2.CHANNEL_AGENT_EVENTS: _agent_event,
    events_pb2.CHANNEL_SYSTEM_EVENTS: _system_event,
    events_pb2.CHANNEL_TASK_EVENTS: _task_event,
}
_NARROWED_BY: dict[int, str] = {
    events_pb2.CHANNEL_AGENT_EVENTS: "agent_id",
    events_pb2.CHANNEL_TASK_EVENTS: "task_id",
}

"""Which events a watcher hears of, on which channel, and which ids it may narrow them by."""

from typing import Any

import pytest

from agent_orchestration.v1 import events_pb2, monitoring_pb2
from ao_server.api import event_filters
from ao_server.errors import Invalid
from ao_server.store import rows

AGENTS, SYSTEM = events_pb2.CHANNEL_AGENT_EVENTS, events_pb2.CHANNEL_SYSTEM_EVENTS
TASKS, WORKFLOWS = events_pb2.CHANNEL_TASK_EVENTS, events_pb2.CHANNEL_WORKFLOW_EVENTS
IDS = ("agent_id", "task_id", "workflow_id", "execution_id")
# Constructors take dictionaries for messages, which their types do not say.
WATCH: Any = monitoring_pb2.WatchEventsRequest


def event(type_: str, **ids: str) -> rows.Event:
    return rows.Event("project_1", 1, type_, 0, "{}", **ids)


STEP = event("workflow_step_started", workflow_id="workflow_1", execution_id="execution_1")
TASK = event("task_completed", agent_id="agent_1", task_id="task_1", execution_id="execution_1")


@pytest.mark.parametrize(
    ("row", "filters", "channel"),
    [
        (STEP, [], events_pb2.CHANNEL_UNSPECIFIED),
        (STEP, [{"channel": WORKFLOWS}], WORKFLOWS),
        (STEP, [{"channel": WORKFLOWS, "workflow_id": "workflow_1"}], WORKFLOWS),
        (STEP, [{"channel": WORKFLOWS, "execution_id": "execution_1"}], WORKFLOWS),
        (STEP, [{"channel": WORKFLOWS, "workflow_id": "workflow_1", "execution_id": "execution_1"}], WORKFLOWS),
        (STEP, [{"channel": WORKFLOWS, "workflow_id": "workflow_2", "execution_id": "execution_1"}], None),
        (STEP, [{"channel": WORKFLOWS, "workflow_id": "workflow_1", "execution_id": "execution_2"}], None),
        (STEP, [{"channel": AGENTS}, {"channel": TASKS}, {"channel": SYSTEM}], None),
        (TASK, [{"channel": WORKFLOWS}], None),
        (TASK, [{"channel": WORKFLOWS}, {"channel": TASKS, "task_id": "task_2"}, {"channel": SYSTEM}], SYSTEM),
        (TASK, [{"channel": AGENTS, "agent_id": "agent_1"}, {"channel": TASKS}], AGENTS),
        (event("agent_updated", agent_id="agent_2"), [{"channel": AGENTS, "agent_id": "agent_1"}], None),
    ],
)
def test_an_event_is_heard_through_the_first_filter_that_matches(
    row: rows.Event, filters: list[dict[str, Any]], channel: int | None
) -> None:
    assert event_filters.channel(row, event_filters.of(WATCH(filters=filters))) == channel
    if len(filters) == 1:
        assert event_filters.channel(row, event_filters.of(WATCH(**filters[0]))) == channel


@pytest.mark.parametrize("name", IDS)
def test_an_id_is_good_with_its_channel_alone(name: str) -> None:
    own = {"agent_id": AGENTS, "task_id": TASKS}.get(name, WORKFLOWS)
    word = events_pb2.Channel.Name(own).removeprefix("CHANNEL_").lower()
    for channel in (AGENTS, SYSTEM, TASKS, WORKFLOWS):
        for request in (WATCH(channel=channel, **{name: "x"}), WATCH(filters=[{"channel": channel, name: "x"}])):
            if channel == own:
                assert [getattr(each, name) for each in event_filters.of(request)] == ["x"]
            else:
                with pytest.raises(Invalid, match=f"narrows {word} alone"):
                    event_filters.of(request)
    with pytest.raises(Invalid, match=f"narrows {word} alone"):
        event_filters.of(WATCH(**{name: "x"}))

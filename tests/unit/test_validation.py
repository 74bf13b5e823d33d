"""What the limits of fields refuse, and where they say that it stands."""

from math import nan
from typing import Any

import pytest
from google.protobuf.message import Message

from agent_orchestration.v1 import runners_pb2, tasks_pb2, workflows_pb2
from ao_server.api.validation import validate
from ao_server.errors import Invalid

# Constructors take dictionaries for messages, which their types do not say.
CREATE: Any = tasks_pb2.CreateTaskRequest
CONNECT: Any = runners_pb2.ConnectRequest
PROGRESS: Any = runners_pb2.ProgressReport
SIMULATE: Any = workflows_pb2.SimulateWorkflowRequest


def changed(**fields: object) -> tasks_pb2.CreateTaskRequest:
    """A good request but for these fields; None takes one out."""
    return CREATE(**({"agent_id": "agent", "type": "noop", "payload": "{}"} | fields))


GOOD = changed()


@pytest.mark.parametrize(
    ("message", "wrong"),
    [
        (GOOD, {}),
        (changed(agent_id=None, agent_type="worker"), {}),
        (changed(type=None), {"type": "is required"}),
        (changed(agent_id=None), {"agent_id": "is required where agent_type is not given"}),
        (changed(agent_type="worker"), {"agent_id": "cannot be given together with agent_type"}),
        (changed(agent_id=""), {"agent_id": "must not be empty"}),
        (changed(type="x" * 101), {"type": "must have at most 100 characters"}),
        (changed(type="a\0b", payload="[]"), {"type": "must not contain U+0000", "payload": "must be a JSON object"}),
        (changed(payload='{"a": "%s"}' % ("é" * 524288)), {"payload": "must be at most 1048576 bytes of JSON"}),
        (changed(priority=99), {"priority": "99 is not a known value"}),
        (changed(timeout={}), {"timeout": "must be above 0"}),
        (changed(timeout={"seconds": 315360001}), {"timeout": "must be at most 315360000"}),
        (changed(retry={"attempts": -1}), {"retry.attempts": "must be at least 0"}),
        (changed(schedule={}), {"schedule.type": "is required"}),
        (changed(labels={"": "a"}), {"labels": "must not have an empty key"}),
        (changed(labels={"key": "x" * 257, "k" * 257: ""}), {"labels.key": "", "labels." + "k" * 50: ""}),
        (changed(labels={str(number): "" for number in range(65)}), {"labels": "must have at most 64 items"}),
        (SIMULATE(workflow_id="w", outcomes=[{"step_id": "a", "output": "[null]"}]), {}),
        (
            SIMULATE(workflow_id="w", outcomes=[{"step_id": "a", "output": '"%s"' % ("x" * 1048575)}]),
            {"outcomes[0].output": "must be at most 1048576 bytes of JSON"},
        ),
        (
            SIMULATE(workflow_id="w", outcomes=[{"step_id": "a", "output": "1 2"}]),
            {"outcomes[0].output": "must be well-"},
        ),
        (tasks_pb2.CreateTasksRequest(tasks=[GOOD] * 1_000), {}),
        (tasks_pb2.CreateTasksRequest(), {"tasks": "must have at least 1 items"}),
        (tasks_pb2.CreateTasksRequest(tasks=[GOOD] * 1_001), {"tasks": "must have at most 1000 items"}),
        (
            tasks_pb2.CreateTasksRequest(tasks=[GOOD, changed(type=""), GOOD, changed(retry={"attempts": 101})]),
            {"tasks[1].type": "is required", "tasks[3].retry.attempts": "must be at most 100"},
        ),
        (tasks_pb2.ListTasksRequest(label=["a", "b\0"]), {"label[1]": "must not contain U+0000"}),
        (
            CONNECT(outcomes={"outcomes": [{}, {"attempt": {}, "result": "no JSON"}]}),
            {
                "outcomes.outcomes[0].attempt": "is required",
                "outcomes.outcomes[1].attempt.task_id": "is required",
                "outcomes.outcomes[1].attempt.number": "must be at least 1",
            },
        ),
        (
            PROGRESS(attempt={"task_id": "task", "number": 1}, progress=nan),
            {"progress": "must be at least 0"},
        ),
    ],
)
def test_every_field_that_breaks_a_rule_is_named(message: Message, wrong: dict[str, str]) -> None:
    found: dict[str, str] = {}
    try:
        validate(message)
    except Invalid as refused:
        found = {each.field: each.message for each in refused.details}
    assert found.keys() == wrong.keys()
    assert all(text in found[field] for field, text in wrong.items())

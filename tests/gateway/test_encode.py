import json
from typing import Any

import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from agent_orchestration.v1 import agents_pb2, common_pb2, events_pb2, executions_pb2, monitoring_pb2, tasks_pb2
from ao_gateway import bindings, scalars
from ao_gateway.app import FILES
from ao_gateway.decode import RequestDecoder
from ao_gateway.encode import ResponseEncoder, encode, message_view
from ao_gateway.frames import FeedEvent

FREE = '{"z": 1.0, "a": 12345678901234567890123, "z": 1E5}'


def text(message: Message) -> str:
    descriptor: Any = message.DESCRIPTOR
    return ResponseEncoder(descriptor, 200).encode(message).decode()


def printed(message: Message) -> Any:
    return json.loads(text(message))


def a_task() -> tasks_pb2.Task:
    task = tasks_pb2.Task(id="task_1", payload=FREE, result=FREE, progress=65.5, status=tasks_pb2.TASK_STATUS_RUNNING)
    task.created_at.FromMicroseconds(1_700_000_000_123_000)
    task.logs.add(level=common_pb2.LOG_LEVEL_INFO, message="é")
    return task


def test_scalars_are_always_printed_and_unset_messages_never() -> None:
    assert printed(tasks_pb2.GetTaskResponse(data=tasks_pb2.Task())) == {
        "data": {
            "id": "",
            "type": "",
            "status": "unspecified",
            "priority": "unspecified",
            "progress": 0,
            "attempt": 0,
            "logs": [],
            "agent_type": "",
            "labels": {},
            "failures": 0,
        }
    }
    assert printed(tasks_pb2.ListTasksResponse()) == {"data": []}
    assert printed(agents_pb2.GetAgentResponse(data=agents_pb2.Agent()))["data"]["configuration"] == {}


def test_free_json_is_spliced_in() -> None:
    assert f'"payload":{FREE},"result":{FREE}' in text(tasks_pb2.GetTaskResponse(data=a_task()))


def test_lists_leave_out_what_is_for_detail_alone() -> None:
    detail = printed(tasks_pb2.GetTaskResponse(data=a_task()))["data"]
    (listed,) = printed(tasks_pb2.ListTasksResponse(data=[a_task()]))["data"]
    assert detail.keys() - listed.keys() == {"payload", "logs"}


def test_events_print_the_task_as_lists_do() -> None:
    event = events_pb2.Event(cursor="c1", type=events_pb2.EVENT_TYPE_TASK_COMPLETED, task=a_task())
    event.timestamp.FromMicroseconds(1_700_000_000_000_000)
    frame = FeedEvent(event).frame("agent_events")
    assert frame[:2] == b"\x81\x7e"
    message = json.loads(frame[4:])
    assert list(message) == ["type", "channel", "cursor", "timestamp", "payload"]
    assert message["type"] == "task_completed"
    assert message["timestamp"] == "2023-11-14T22:13:20Z"
    assert message["payload"].keys() == printed(tasks_pb2.ListTasksResponse(data=[a_task()]))["data"][0].keys()


def test_events_print_the_execution_as_lists_do_and_a_step_where_there_is_one() -> None:
    event = events_pb2.Event(cursor="c1", type=events_pb2.EVENT_TYPE_WORKFLOW_STARTED)
    execution = event.workflow_change.execution
    execution.id, execution.parameters, execution.output = "execution_1", FREE, FREE
    execution.steps.add(id="extract")
    payload = json.loads(FeedEvent(event).message(None))["payload"]
    (listed,) = printed(executions_pb2.ListExecutionsResponse(data=[execution]))["data"]
    assert payload == {"execution": listed}
    assert not listed.keys() & {"parameters", "output", "steps"}
    event.workflow_change.step.id = "extract"
    assert json.loads(FeedEvent(event).message(None))["payload"]["step"]["id"] == "extract"


@pytest.mark.parametrize("value", ["[1.0, 1E5]", "null", '"text"', "-0.0", "false"])
def test_any_json_is_spliced_in(value: str) -> None:
    step = executions_pb2.ExecutionStep(output=value)
    assert f'"output":{value}' in text(executions_pb2.GetExecutionStepResponse(data=step))


@pytest.mark.parametrize(
    ("microseconds", "expected"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1_700_000_000_123_000, "2023-11-14T22:13:20.123Z"),
        (1_700_000_000_000_001, "2023-11-14T22:13:20.000001Z"),
        (-1_000, "1969-12-31T23:59:59.999Z"),
    ],
)
def test_times(microseconds: int, expected: str) -> None:
    task = tasks_pb2.Task()
    task.created_at.FromMicroseconds(microseconds)
    assert printed(tasks_pb2.GetTaskResponse(data=task))["data"]["created_at"] == expected


def test_numbers() -> None:
    agent = agents_pb2.Agent(configuration="{}")
    agent.health.uptime.FromMicroseconds(86_400_000_000)
    agent.metrics.tasks_completed = 2**62
    agent.metrics.success_rate = 98.5
    agent.metrics.cpu_usage = -0.0
    body = text(agents_pb2.GetAgentResponse(data=agent))
    assert '"uptime":86400}' in body
    assert f'"tasks_completed":{2**62},' in body
    assert '"success_rate":98.5,' in body
    assert '"cpu_usage":0}' in body
    task = tasks_pb2.Task()
    task.duration.FromMicroseconds(1_500_000)
    assert '"duration":1.5' in text(tasks_pb2.GetTaskResponse(data=task))


def test_a_message_that_is_a_list_is_printed_as_one_and_can_be_absent() -> None:
    report = monitoring_pb2.MetricsReport(period=monitoring_pb2.PERIOD_24H)
    report.metrics.response_time.SetInParent()
    point = report.metrics.task_completion_rate.points.add(value=95.2)
    point.timestamp.FromJsonString("2024-01-01T00:00:00Z")
    assert text(monitoring_pb2.GetMetricsResponse(data=report)) == (
        '{"data":{"period":"24h","metrics":{"task_completion_rate":[{"timestamp":"2024-01-01T00:00:00Z","value":95.2}],'
        '"response_time":[]}}}'
    )


def test_what_a_header_carries_is_not_in_the_body() -> None:
    encoder = ResponseEncoder(tasks_pb2.CreateTasksResponse.DESCRIPTOR, 201)
    replayed = tasks_pb2.CreateTasksResponse(idempotent_replayed=True)
    assert (encoder.encode(replayed), encoder.headers(replayed)) == (
        b'{"data":[]}',
        [(b"idempotent-replayed", b"true")],
    )
    assert encoder.headers(tasks_pb2.CreateTasksResponse()) == []


def test_an_event_without_a_cursor_is_printed_without_one() -> None:
    event = events_pb2.Event(type=events_pb2.EVENT_TYPE_SYSTEM_ALERT)
    event.system_alert.code = "store_unavailable"
    assert list(json.loads(FeedEvent(event).message("system_events"))) == ["type", "channel", "timestamp", "payload"]
    event.cursor = "c1"
    assert list(json.loads(FeedEvent(event).message(None))) == ["type", "cursor", "timestamp", "payload"]


def test_the_status_comes_from_options() -> None:
    encoder = ResponseEncoder(monitoring_pb2.GetHealthResponse.DESCRIPTOR, 200)
    assert encoder.status(monitoring_pb2.GetHealthResponse(status=monitoring_pb2.SYSTEM_STATUS_DEGRADED)) == 200
    assert encoder.status(monitoring_pb2.GetHealthResponse(status=monitoring_pb2.SYSTEM_STATUS_UNHEALTHY)) == 503
    created = {binding.rpc.split("/")[-1]: binding.success_status for binding in bindings.read(FILES)}
    assert (created["CreateTask"], created["GetTask"]) == (201, 200)


def test_every_route_has_a_printed_form_both_ways() -> None:
    for binding in bindings.read(FILES):
        RequestDecoder(binding).decode(["x"] * len(binding.parameters), b"", [], b"")
        ResponseEncoder(binding.response, binding.success_status).encode(bindings.message_class(binding.response)())


@given(
    st.builds(
        tasks_pb2.CreateTaskRequest,
        agent_id=st.text(),
        type=st.text(),
        priority=st.sampled_from([1, 2, 3, 4]),
        payload=st.none() | st.just(FREE),
        schedule=st.none() | st.builds(tasks_pb2.Schedule, type=st.just(tasks_pb2.SCHEDULE_TYPE_IMMEDIATE)),
    )
)
def test_what_is_encoded_decodes_to_the_same(request: tasks_pb2.CreateTaskRequest) -> None:
    binding = next(each for each in bindings.read(FILES) if each.rpc.endswith("/CreateTask"))
    body = encode(message_view(request.DESCRIPTOR, listed=False)(request))
    assert RequestDecoder(binding).decode([], b"", [], body) == request


@given(st.floats())
def test_a_printed_number_is_the_number(value: float) -> None:
    shown = scalars.print_number(value)
    assert shown is None or (
        shown == value and not (isinstance(shown, float) and json.dumps(shown).endswith(".0") and abs(value) < 2**53)
    )

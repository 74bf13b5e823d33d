import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_orchestration.v1 import common_pb2, events_pb2, tasks_pb2
from ao_gateway import bindings
from ao_gateway.app import FILES
from ao_gateway.decode import RequestDecoder
from ao_gateway.errors import MAX_VIOLATIONS, Headers, Refusal

BINDINGS = {binding.rpc.split("/")[-1]: binding for binding in bindings.read(FILES)}
GOOD = {"agent_id": "agent_1", "type": "t"}


def decode(
    rpc: str, *, path: tuple[str, ...] = (), query: bytes = b"", headers: Headers | None = None, body: bytes = b""
) -> Any:
    return RequestDecoder(BINDINGS[rpc]).decode(path, query, headers or [], body)


def violations(
    rpc: str, *, path: tuple[str, ...] = (), query: bytes = b"", headers: Headers | None = None, body: bytes = b""
) -> dict[str, str]:
    with pytest.raises(Refusal) as raised:
        decode(rpc, path=path, query=query, headers=headers, body=body)
    assert (raised.value.status, raised.value.code) == (400, "validation_error")
    return {each.field: each.message for each in raised.value.details}


def create(**changes: Any) -> bytes:
    return json.dumps(GOOD | changes).encode()


def test_free_json_travels_verbatim() -> None:
    payload = '{ "z": 1.0,\n "a": 12345678901234567890123, "a": -0.0, "s": "\\u0000é" }'
    body = '{"payload": ' + payload + ' , "agent_id": "agent_1", "type": "t"}'
    assert decode("CreateTask", body=body.encode()).payload == payload


def test_enums_are_words_and_messages_objects() -> None:
    request = decode("CreateTask", body=create(priority="critical", schedule={"type": "immediate"}))
    assert request.priority == common_pb2.PRIORITY_CRITICAL
    assert request.schedule.type == tasks_pb2.SCHEDULE_TYPE_IMMEDIATE


def test_null_is_absent_and_the_last_of_two_keys_wins() -> None:
    body = b'{"agent_id": "first", "type": "t", "payload": null, "schedule": null, "agent_id": "last"}'
    request = decode("CreateTask", body=body)
    assert request.agent_id == "last"
    assert not request.HasField("payload")
    assert not request.HasField("schedule")


def test_a_list_that_may_be_absent_but_not_empty() -> None:
    assert not decode("UpdateWorkflow", path=("workflow_1",), body=b'{"steps": null}').steps
    assert violations("UpdateWorkflow", path=("workflow_1",), body=b'{"steps": []}') == {
        "steps": "must have at least 1 items"
    }


@pytest.mark.parametrize("body", [b"", b" \r\n"])
def test_an_empty_body_is_an_empty_object(body: bytes) -> None:
    assert decode("CreateTask", body=body) == tasks_pb2.CreateTaskRequest()


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"agent_id": 5}, "agent_id"),
        ({"agent_id": ["x"]}, "agent_id"),
        ({"type": True}, "type"),
        ({"priority": 3}, "priority"),
        ({"priority": "HIGH"}, "priority"),
        ({"priority": "PRIORITY_HIGH"}, "priority"),
        ({"priority": "unspecified"}, "priority"),
        ({"payload": "{}"}, "payload"),
        ({"payload": []}, "payload"),
        ({"schedule": "immediate"}, "schedule"),
        ({"schedule": {"type": 1}}, "schedule.type"),
        ({"schedule": {"typ": "immediate"}}, "schedule.typ"),
        ({"agentId": "x"}, "agentId"),
        ({"labels": []}, "labels"),
        ({"labels": {"a": 1}}, "labels.a"),
        ({"labels": {"a": None}}, "labels.a"),
        ({"timeout": "30"}, "timeout"),
        ({"retry": {"attempts": 1.5}}, "retry.attempts"),
        ({"idempotency_key": 5}, "idempotency_key"),
    ],
)
def test_exact_types_and_known_names(changes: dict[str, Any], field: str) -> None:
    assert list(violations("CreateTask", body=create(**changes))) == [field]


def test_free_json_is_checked_where_it_stands() -> None:
    body = b'{"agent_id": "a", "type": "t", "payload": {"a": %s}}' % (b"1" * 4301)
    assert "4300 digits" in violations("CreateTask", body=body)["payload"]


def assume(outcome: str) -> Any:
    body = b'{"outcomes": [{"step_id": "a"%s}]}' % outcome.encode()
    return decode("SimulateWorkflow", path=("workflow_1",), body=body).outcomes[0]


@pytest.mark.parametrize("value", ['{ "a": 1.0 }', "[1E5, -0.0]", '"text"', "12345678901234567890123", "null", "false"])
def test_any_json_travels_verbatim_and_null_is_a_value(value: str) -> None:
    assert assume(f', "output": {value} ').output == value
    assert assume(f', "output": {value}, "status": null').output == value
    assert not assume("").HasField("output")


@pytest.mark.parametrize(("value", "reason"), [("1" * 4301, "4300 digits"), ("[" * 101 + "]" * 101, "100 levels")])
def test_any_json_has_the_limits_of_free_json(value: str, reason: str) -> None:
    with pytest.raises(Refusal) as raised:
        assume(f', "output": {value}')
    (violation,) = raised.value.details
    assert violation.field == "outcomes[0].output"
    assert reason in violation.message


def test_everything_that_is_wrong_is_said_at_once() -> None:
    found = violations("CreateTask", query=b"x=1", body=create(priority=1, schedule={"a": 1, "type": 2}))
    assert list(found) == ["x", "priority", "schedule.a", "schedule.type"]
    assert "low, medium, high, critical" in found["priority"]


@pytest.mark.parametrize(
    ("rpc", "query", "body"),
    [
        ("CreateTask", b"", {f"unknown_{number}": 1 for number in range(10_000)}),
        ("CreateTasks", b"", {"tasks": [{"labels": {f"label_{number}": 1 for number in range(60)}}] * 1_000}),
        ("CreateTask", b"&".join(b"unknown_%d" % number for number in range(10_000)), {}),
    ],
)
def test_violations_are_bounded(rpc: str, query: bytes, body: dict[str, Any]) -> None:
    assert len(violations(rpc, query=query, body=json.dumps(body).encode())) == MAX_VIOLATIONS


@pytest.mark.parametrize(
    "body", [b"[]", b"5", b"null", b"{", b'{"a": "\xff"}', b'{"a": "\\ud800"}', b'{"a":' + b"[" * 100_000, b"{} {}"]
)
def test_a_body_that_is_no_object_is_refused_as_a_whole(body: bytes) -> None:
    assert violations("CreateTask", body=body) == {}


def test_the_query_is_as_strict() -> None:
    query = b"limit=&page=05&status=PENDING&priority=1&foo=1&created_after=2024-01-01&agent_id=a%00b&agent_id=b"
    found = violations("ListTasks", query=query)
    assert found.keys() == {"limit", "page", "status", "priority", "foo", "created_after", "agent_id"}
    assert violations("ListTasks", query=b"page=1&page=1") == {"page": "must be given once"}
    assert violations("ListTasks", query=b"page=2147483648&limit") == {
        "page": "must be from -2147483648 to 2147483647",
        "limit": "must not be empty",
    }


def test_the_query_takes_what_it_should() -> None:
    query = b"&page=2&status=pending&agent_id=a+%C3%A9&created_after=2024-01-01T02:00:00+02:00&"
    request = decode("ListTasks", query=query)
    assert (request.page, request.status, request.agent_id) == (2, tasks_pb2.TASK_STATUS_PENDING, "a é")
    assert request.created_after.ToJsonString() == "2024-01-01T00:00:00Z"


def test_a_parameter_that_is_a_list_may_be_repeated() -> None:
    assert decode("ListTasks", query=b"label=a&page=2&label=b%3Dc&label=d=e=f").label == ["a", "b=c", "d=e=f"]
    assert violations("ListTasks", query=b"label=a&label=") == {"label": "must not be empty"}


@pytest.mark.parametrize(
    ("text", "microseconds"), [("30", 30_000_000), ("0.25", 250_000), ("0", 0), ("-1", -1_000_000)]
)
def test_a_duration_in_the_query_is_in_seconds(text: str, microseconds: int) -> None:
    request = decode("GetTask", path=("task_1",), query=b"wait=" + text.encode())
    assert request.wait.ToMicroseconds() == microseconds


@pytest.mark.parametrize("text", ["30s", "1,5", "05", "NaN", "1e400", "+5"])
def test_a_duration_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(Refusal) as raised:
        decode("GetTask", path=("task_1",), query=b"wait=" + text.encode())
    assert [each.field for each in raised.value.details] == ["wait"]


def test_labels_are_text_by_text() -> None:
    assert decode("CreateTask", body=create(labels={"team": "é", "": "", "a.b": "1"})).labels == {
        "team": "é",
        "": "",
        "a.b": "1",
    }


KEY = b"idempotency-key"


@pytest.mark.parametrize(
    ("headers", "body", "taken"),
    [
        ([(KEY, b"k 1")], {}, "k 1"),
        ([(KEY, b" \tk1\t ")], {}, "k1"),
        ([(KEY, b"k1")], {"idempotency_key": "k1"}, "k1"),
        ([(KEY, b"k1")], {"idempotency_key": None}, "k1"),
        ([], {"idempotency_key": "é"}, "é"),
    ],
)
def test_a_header_fills_its_field(headers: Headers, body: dict[str, Any], taken: str) -> None:
    assert decode("CreateTask", headers=headers, body=create(**body)).idempotency_key == taken


def test_no_other_header_fills_a_field() -> None:
    others = [(b"idempotency_key", b"k1"), (b"x-idempotency-key", b"k1"), (b"type", b"t")]
    assert decode("CreateTask", headers=others) == tasks_pb2.CreateTaskRequest()


@pytest.mark.parametrize(
    ("headers", "body", "said"),
    [
        ([(KEY, b"")], {}, "must not be empty"),
        ([(KEY, b" \t")], {}, "must not be empty"),
        ([(KEY, b"k1"), (KEY, b"k1")], {}, "must be given once"),
        ([(KEY, "é".encode())], {}, "must be printable ASCII"),
        ([(KEY, b"\xe9")], {}, "must be printable ASCII"),
        ([(KEY, b"a\tb")], {}, "must be printable ASCII"),
        ([(KEY, b"a\x7f")], {}, "must be printable ASCII"),
        ([(KEY, b"k1")], {"idempotency_key": "k2"}, "is not the same as the header Idempotency-Key"),
    ],
)
def test_a_header_that_cannot_fill_its_field_is_refused_by_the_fields_name(
    headers: Headers, body: dict[str, Any], said: str
) -> None:
    found = violations("CreateTask", headers=headers, body=create(**body))
    assert list(found) == ["idempotency_key"]
    assert said in found["idempotency_key"]


def test_what_a_header_carries_is_never_in_the_query() -> None:
    assert violations("CreateTask", query=b"idempotency_key=k1", body=create()).keys() == {"idempotency_key"}


def test_a_list_of_messages_is_no_parameter() -> None:
    assert violations("WatchEvents", query=b"filters=x&filters=y").keys() == {"filters"}
    request = decode("WatchEvents", query=b"channel=task_events&task_id=t&after=c")
    assert (request.channel, request.task_id, request.after) == (events_pb2.CHANNEL_TASK_EVENTS, "t", "c")


def test_path_values_fill_their_fields() -> None:
    assert decode("GetTask", path=("task_1",)).task_id == "task_1"


@given(
    st.datetimes(min_value=datetime(1, 1, 3), max_value=datetime(9999, 12, 29)),
    st.integers(-23 * 60, 23 * 60),
    st.sampled_from(["seconds", "milliseconds", "microseconds"]),
)
def test_any_rfc3339_time_is_read_exactly(moment: datetime, offset: int, precision: str) -> None:
    aware = moment.replace(tzinfo=timezone(timedelta(minutes=offset)))
    text = aware.isoformat(timespec=precision)
    request = decode("ListTasks", query=b"created_before=" + text.encode())
    expected = datetime.fromisoformat(text).astimezone(UTC).replace(tzinfo=None)
    assert request.created_before.ToDatetime() == expected


@pytest.mark.parametrize(
    "text", ["2024-02-30T00:00:00Z", "2024-01-01T00:00:00", "2024-01-01T24:00:00Z", "0001-01-01T00:00:00+10:00", "now"]
)
def test_a_time_that_is_none_is_refused(text: str) -> None:
    assert violations("ListTasks", query=b"created_after=" + text.encode()).keys() == {"created_after"}


@given(st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.integers())))
def test_any_object_is_answered_with_a_request_or_violations(fields: dict[str, Any]) -> None:
    try:
        decode("CreateTask", body=json.dumps(fields).encode())
    except Refusal as refusal:
        assert refusal.status == 400

"""The OpenAPI document: valid, whole, and in agreement with what the gateway prints."""

import json
from typing import Any

import httpx2
import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from openapi_spec_validator import validate

from agent_orchestration.v1 import monitoring_pb2
from ao_gateway import bindings, openapi
from ao_gateway.app import FILES
from ao_gateway.bindings import Binding
from ao_gateway.encode import ResponseEncoder
from tests.documented import Documented
from tests.gateway.conftest import Running

ROUTES = bindings.read(FILES)
DOCUMENT = openapi.document(ROUTES)
SCHEMAS = DOCUMENT["components"]["schemas"]
BESIDE_ROUTES = {
    *("GET /livez", "GET /readyz", "POST /oauth/token", "POST /oauth/revoke"),
    "GET /.well-known/oauth-authorization-server",
}


def operation(name: str) -> dict[str, Any]:
    return Documented(DOCUMENT).operation(name)[2]


def parameter(name: str, of: str) -> dict[str, Any]:
    (found,) = (each for each in operation(of)["parameters"] if each["name"] == name)
    return found


def test_the_document_is_valid_and_small() -> None:
    validate(DOCUMENT)
    assert len(json.dumps(DOCUMENT)) < 200_000


def test_every_route_is_in_it_and_nothing_else() -> None:
    documented = {f"{method.upper()} {path}" for path, methods in DOCUMENT["paths"].items() for method in methods}
    assert documented == BESIDE_ROUTES | {f"{each.http_method} {each.path}" for each in ROUTES}
    names = [each["operationId"] for methods in DOCUMENT["paths"].values() for each in methods.values()]
    assert len(set(names)) == len(names)


def test_limits_come_from_the_rules() -> None:
    assert parameter("limit", of="ListTasks")["schema"] == {
        "type": "integer",
        "format": "int32",
        "minimum": 1,
        "maximum": 100,
    }
    wait = parameter("wait", of="GetTask")
    assert wait["schema"] == {"type": "number", "minimum": 0, "maximum": 60}
    assert wait["description"].startswith("Seconds to wait")
    label = parameter("label", of="ListTasks")
    assert (label["explode"], label["schema"]["maxItems"]) == (True, 64)
    assert label["schema"]["items"].items() >= {"minLength": 1, "maxLength": 513}.items()
    task = SCHEMAS["CreateTaskRequest"]
    assert (task["required"], task["additionalProperties"]) == (["type"], False)
    assert task["properties"]["timeout"].items() >= {"exclusiveMinimum": 0, "maximum": 315360000}.items()
    labels = task["properties"]["labels"]
    assert labels["maxProperties"] == 64
    assert labels["propertyNames"].items() >= {"minLength": 1, "maxLength": 256}.items()
    assert (SCHEMAS["CreateTasksRequest"]["required"], operation("CreateTasks")["requestBody"]["required"]) == (
        ["tasks"],
        True,
    )


def test_enums_are_words_and_explained() -> None:
    assert SCHEMAS["TaskStatus"]["enum"] == ["pending", "running", "completed", "failed", "cancelled"]
    assert SCHEMAS["Period"]["enum"] == ["1h", "24h", "7d", "30d"]
    assert "`initializing`: Registered; no process has connected yet." in SCHEMAS["AgentStatus"]["description"]


def test_any_json_is_any_value() -> None:
    taken = SCHEMAS["AssumedOutcomeInput"]["properties"]["output"]
    assert taken == {"x-max-bytes": 1048576, "description": "What it returns, or each of its items; absent: {}."}
    printed = SCHEMAS["ExecutionStep"]["properties"]
    assert (printed["output"].keys(), printed["input"]["type"]) == ({"description"}, "object")


def test_lists_have_shapes_of_their_own() -> None:
    listed, shown = SCHEMAS["TaskListed"]["properties"], SCHEMAS["Task"]["properties"]
    assert shown.keys() - listed.keys() == {"payload", "logs"}
    assert SCHEMAS["ListTasksResponse"]["properties"]["data"]["items"] == {"$ref": "#/components/schemas/TaskListed"}
    assert SCHEMAS["MetricSeries"]["type"] == "array"


def test_headers_are_no_part_of_bodies_that_they_cannot_fill() -> None:
    key = parameter("Idempotency-Key", of="CreateTask")
    assert (key["in"], key["schema"]["maxLength"]) == ("header", 255)
    assert "idempotency_key" in SCHEMAS["CreateTaskRequest"]["properties"]
    assert "idempotency_key" not in SCHEMAS["CreateTaskInput"]["properties"]
    assert "idempotent_replayed" not in SCHEMAS["CreateTaskResponse"]["properties"]
    assert "Idempotent-Replayed" in operation("CreateTask")["responses"]["201"]["headers"]


def test_errors_are_those_that_a_route_has() -> None:
    assert list(operation("ListTasks")["responses"]) == ["200", "400", "401", "403", "408", "429", "500", "503"]
    assert operation("UpdateAgent")["responses"].keys() >= {"200", "404", "409", "413", "415"}
    assert "Retry-After" in DOCUMENT["components"]["responses"]["TooManyRequests"]["headers"]
    words = [each["description"] for methods in DOCUMENT["paths"].values() for each in methods.values()]
    assert not [text for text in words if "NOT_FOUND" in text or "INVALID_ARGUMENT" in text]


@pytest.mark.parametrize("route", [each for each in ROUTES if not each.is_stream], ids=lambda route: route.rpc)
@pytest.mark.parametrize("is_full", [True, False])
def test_whatever_is_printed_is_documented(route: Binding, is_full: bool) -> None:
    message = bindings.message_class(route.response)()
    fill(message, is_full, is_answer=True)
    encoder = ResponseEncoder(route.response, route.success_status)
    name = route.rpc.rsplit("/", 1)[1]
    printed = json.loads(encoder.encode(message))
    assert Documented(DOCUMENT).answer_problems(name, route.success_status, printed) == []


def test_bad_health_is_documented_with_its_status() -> None:
    health = monitoring_pb2.GetHealthResponse()
    fill(health, is_full=True, is_answer=True)
    health.status = monitoring_pb2.SYSTEM_STATUS_UNHEALTHY
    encoder = ResponseEncoder(health.DESCRIPTOR, 200)
    printed = json.loads(encoder.encode(health))
    assert Documented(DOCUMENT).answer_problems("GetHealth", encoder.status(health), printed) == []


def test_a_body_that_is_needed_has_an_example_that_fits() -> None:
    documented = Documented(DOCUMENT)
    for methods in DOCUMENT["paths"].values():
        for each in methods.values():
            content = each.get("requestBody", {}).get("content", {}).get("application/json", {})
            if each.get("requestBody", {}).get("required"):
                assert "example" in content, each["operationId"]
            if "example" in content:
                assert documented.problems(content["schema"], content["example"]) == []


async def test_it_is_served_to_anybody(running: Running) -> None:
    async with httpx2.AsyncClient(base_url=running.url, trust_env=False) as stranger:
        served = await stranger.get("/openapi.json")
        assert (served.status_code, served.headers["content-type"]) == (200, "application/json")
        assert served.json() == DOCUMENT
        head = await stranger.head("/openapi.json")
        assert (head.status_code, head.content) == (200, b"")
        refused = await stranger.post("/openapi.json")
        assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")
        assert refused.json()["error"]["code"] == "method_not_allowed"


def fill(message: Message, is_full: bool, is_answer: bool = False) -> None:
    """Sets fields to some value: all of them, or those alone that are always printed."""
    field: Any
    for field in message.DESCRIPTOR.fields:
        is_message = field.message_type is not None
        if field.is_repeated or (field.has_presence and not (is_answer and is_message)):
            if is_full:
                fill_field(message, field, is_full)
        else:
            fill_field(message, field, is_full)


def fill_field(message: Message, field: FieldDescriptor, is_full: bool) -> None:
    value: Any = getattr(message, field.name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        value["key"] = "value"
    elif field.message_type is not None:
        item = value.add() if field.is_repeated else value
        if field.message_type.full_name.startswith("google.protobuf."):
            item.FromMicroseconds(1_700_000_000_123_000)
        else:
            if not field.is_repeated:
                item.SetInParent()
            fill(item, is_full)
    elif field.is_repeated:
        value.append(a_value(field))
    else:
        setattr(message, field.name, a_value(field))


def a_value(field: FieldDescriptor) -> Any:
    if field.type == field.TYPE_STRING:
        return '{"any": 1}'
    if field.type == field.TYPE_BOOL:
        return True
    return 1.5 if field.type == field.TYPE_DOUBLE else 1

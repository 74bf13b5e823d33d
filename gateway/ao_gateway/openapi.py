"""The OpenAPI 3.1 document: every route of the gateway, from its bindings and the options of the protos."""

import re
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor

from agent_orchestration import __version__
from agent_orchestration.v1 import events_pb2, options_pb2
from ao_gateway import openapi_comments, openapi_oauth, openapi_schemas, query, scalars
from ao_gateway.bindings import WHOLE_BODY, Binding, header_fields
from ao_gateway.openapi_answers import ERROR, HEADERS, REQUEST_ID, error, error_responses, error_statuses
from ao_gateway.openapi_examples import BODIES
from ao_gateway.openapi_schemas import Schema, Schemas

Document = dict[str, Any]

_TITLE: Final = "Agent Orchestration"
_INTRODUCTION: Final = """\
A control plane for agents: programs submit tasks, long-lived processes take them, and all of it can be watched live.

A request carries an API key or an access token, as `Authorization: Bearer <key>`. Bodies are JSON. A field or parameter
that is not known is refused; `null` stands for a field that is left out. Times are RFC 3339, durations are seconds.
`HEAD` is answered as `GET`.

Every answer that is not a success has the shape `Error`, but for those to OAuth clients, and every answer has the
header `X-Request-Id`. Under a good credential it says how many calls are left in this hour: `X-RateLimit-Limit`,
`X-RateLimit-Remaining`, and `X-RateLimit-Reset`, when the hour ends, in seconds since 1970. An hour without a limit has
none of them.

Events come as they happen over `GET /v1/events`, or over a WebSocket at `/v1/ws`, which OpenAPI cannot describe. There
a client says `{"type": "auth", "token": "<key>"}`, then `{"type": "subscribe", "channel": "task_events"}`, and hears
messages of the shape `Event`."""

_SUCCESSES: Final = {200: "Done.", 201: "Created, and on disk."}
_PRINTABLE: Final = r"^[ -~]*$"
# Where HTTP differs from what the protos say.
_EVENT_TEXTS: Final = {
    "channel": "The first channel asked for that carries the event; absent when none was asked for.",
    "cursor": "Its place in the project's feed, opaque: `after` resumes behind it. "
    "Absent for an alert that could not be written yet; it comes again.",
}
_PROBES: Final = {
    "/livez": ("GetLiveness", "Says that the process is alive.", False),
    "/readyz": ("GetReadiness", "Says whether requests can be served: 503 while the server cannot be reached.", True),
}


def document(bindings: Iterable[Binding]) -> Document:
    """The document of these routes and of the probes beside them."""
    schemas = Schemas()
    schemas.components["Error"] = ERROR
    schemas.components["Event"] = _event(schemas)
    schemas.components |= openapi_oauth.SCHEMAS
    paths: dict[str, Document] = {}
    tags: dict[str, str] = {}
    for binding in bindings:
        method = _method(binding)
        assert method.containing_service is not None
        tags.setdefault(_tag(method), openapi_comments.of(method.containing_service))
        paths.setdefault(binding.path, {})[binding.http_method.lower()] = _operation(binding, method, schemas)
    for path, probe in _PROBES.items():
        paths[path] = {"get": _probe(*probe)}
    paths |= openapi_oauth.paths()
    return {
        "openapi": "3.1.0",
        "info": {"title": _TITLE, "version": __version__, "description": _unwrapped(_INTRODUCTION)},
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}],
        "tags": [{"name": name} | ({"description": text} if text else {}) for name, text in tags.items()],
        "paths": paths,
        "components": {
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}} | openapi_oauth.SECURITY_SCHEMES,
            "headers": HEADERS,
            "responses": error_responses(),
            "schemas": dict(sorted(schemas.components.items())),
        },
    }


def _operation(binding: Binding, method: MethodDescriptor, schemas: Schemas) -> Document:
    operation: Document = {
        "operationId": method.name,
        "tags": [_tag(method)],
        "summary": _in_words(method.name),
        "description": openapi_comments.of(method),
    }
    parameters = list(_parameters(binding, schemas))
    if parameters:
        operation["parameters"] = parameters
    body = _body(binding, method, schemas)
    if body is not None:
        operation["requestBody"] = body
    return operation | {"responses": _responses(binding, schemas)}


def _parameters(binding: Binding, schemas: Schemas) -> Iterator[Document]:
    headers = header_fields(binding.request)
    in_query = () if binding.body else query.plan(binding.request, {*binding.parameters, *headers})
    for field in binding.request.fields:
        schema = openapi_schemas.in_text(schemas.taken(field))
        if field.name in binding.parameters:
            yield _parameter(field.name, "path", field, schema)
        elif field.name in headers:
            yield _parameter(headers[field.name], "header", field, schema | {"pattern": _PRINTABLE})
        elif field.name in in_query:
            form = {"style": "form", "explode": True} if field.is_repeated else {}
            yield _parameter(field.name, "query", field, schema) | form
    if binding.is_stream and binding.line is None:
        yield {
            "name": "Last-Event-ID",
            "in": "header",
            "description": "As `after`, and stronger: what a client sends that connects again.",
            "schema": {"type": "string", "maxLength": 200, "pattern": _PRINTABLE},
        }


def _parameter(name: str, place: str, field: FieldDescriptor, schema: Schema) -> Document:
    parameter: Document = {"name": name, "in": place}
    text = openapi_comments.of(field)
    if text:
        parameter["description"] = text
    if place == "path" or openapi_schemas.is_required(field):
        parameter["required"] = True
    return parameter | {"schema": schema}


def _body(binding: Binding, method: MethodDescriptor, schemas: Schemas) -> Document | None:
    if not binding.body:
        return None
    if binding.body == WHOLE_BODY:
        fields = [field for field in binding.request.fields if field.name not in binding.parameters]
        schema = schemas.request(binding.request, binding.request.name, binding.parameters)
    else:
        fields = [binding.request.fields_by_name[binding.body]]
        schema = schemas.taken(fields[0])
    if schema is None:
        return None
    content = {"schema": schema} | ({"example": BODIES[method.name]} if method.name in BODIES else {})
    is_required = any(openapi_schemas.is_required(field) for field in fields)
    return ({"required": True} if is_required else {}) | {"content": {"application/json": content}}


def _responses(binding: Binding, schemas: Schemas) -> Document:
    responses: Document = {str(status): error(status) for status in error_statuses(binding)}
    if binding.line is not None:
        text = "Lines of JSON, each of them an object of this shape."
        items = schemas.printed(binding.response.fields_by_name["data"], listed=True)["items"]
        lines = {"application/x-ndjson": {"schema": items}}
        success: Document = {"description": text, "headers": REQUEST_ID, "content": lines}
    elif binding.is_stream:
        text = "Server-Sent Events without an end. The `data` of each is an `Event`, but for a last one, `error`."
        stream = {"text/event-stream": {"schema": {"type": "string"}}}
        success = {"description": text, "headers": REQUEST_ID, "content": stream}
    else:
        schema = schemas.response(binding.response)
        fields = binding.response.fields_by_name
        flags = {
            header: {"description": openapi_comments.of(fields[name]), "schema": {"type": "boolean"}}
            for name, header in header_fields(binding.response).items()
        }
        success = {
            "description": _SUCCESSES[binding.success_status],
            "headers": REQUEST_ID | flags,
            "content": {"application/json": {"schema": schema}},
        }
        for status, cause in _statuses_of_values(binding):
            either = [schema, {"$ref": "#/components/schemas/Error"}]
            responses[str(status)] = {
                "description": f"{cause}; or an `Error`, as on any path.",
                "headers": REQUEST_ID,
                "content": {"application/json": {"schema": {"anyOf": either}}},
            }
    responses[str(binding.success_status)] = success
    return dict(sorted(responses.items()))


def _statuses_of_values(binding: Binding) -> Iterator[tuple[int, str]]:
    """The statuses that an answer has for what it says, with what it says."""
    for field in binding.response.fields:
        if field.enum_type is None or field.is_repeated:
            continue
        words = {number: word for word, number in scalars.words_of(field.enum_type).items()}
        for value in field.enum_type.values:
            status = value.GetOptions().Extensions[options_pb2.http_status]
            if status:
                yield status, f"`{field.name}` is `{words[value.number]}`"


def _probe(name: str, text: str, can_fail: bool) -> Document:
    schema = {"type": "object", "properties": {"status": {"const": "ok"}}, "required": ["status"]}
    success = {"description": "Yes.", "headers": REQUEST_ID, "content": {"application/json": {"schema": schema}}}
    return {
        "operationId": name,
        "tags": ["Monitoring"],
        "summary": _in_words(name),
        "description": text,
        "security": [],
        "responses": {"200": success} | ({"503": error(503)} if can_fail else {}),
    }


def _event(schemas: Schemas) -> Schema:
    """An event as `frames` prints it for streams and sockets: its `payload` is one of several messages."""
    fields = events_pb2.Event.DESCRIPTOR.fields_by_name
    payload = events_pb2.Event.DESCRIPTOR.oneofs_by_name["payload"]
    texts = {name: openapi_comments.of(fields[name]) for name in fields} | _EVENT_TEXTS
    properties = {
        name: schemas.printed(fields[name], listed=False) | ({"description": texts[name]} if texts[name] else {})
        for name in ("type", "channel", "cursor", "timestamp")
    }
    properties["payload"] = {"anyOf": [schemas.printed(field, listed=False) for field in payload.fields]}
    required = [name for name in properties if name not in _EVENT_TEXTS]
    return {"type": "object", "properties": properties, "required": required}


def _method(binding: Binding) -> MethodDescriptor:
    return binding.request.file.pool.FindMethodByName(binding.rpc.removeprefix("/").replace("/", "."))


def _tag(method: MethodDescriptor) -> str:
    """The noun of the method's file: `Agents`, `Tasks`."""
    assert method.containing_service is not None
    return PurePosixPath(method.containing_service.file.name).stem.capitalize().replace("Oauth", "OAuth")


def _in_words(name: str) -> str:
    """`CreateAgent` as `Create agent`, `ListOAuthClients` as `List OAuth clients`."""
    words = re.findall("OAuth|[A-Z][a-z]*", name)
    return " ".join([words[0], *(word if word == "OAuth" else word.lower() for word in words[1:])])


def _unwrapped(text: str) -> str:
    """Paragraphs without line breaks in them."""
    return re.sub(r"(?<!\n)\n(?!\n)", " ", text)

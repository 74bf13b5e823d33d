"""One request over gRPC and, where the RPC has a route, over REST: the answers in a form that can be compared."""

import json
import re
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

import grpc
import httpx2
from google.protobuf import json_format
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from ao_gateway import bindings
from ao_gateway.app import FILES
from ao_gateway.bindings import Binding, message_class
from ao_gateway.decode import RequestDecoder

METHODS: Final[dict[str, MethodDescriptor]] = {
    method.name: method for file in FILES for service in file.services_by_name.values() for method in service.methods
}
ROUTES: Final[dict[str, Binding]] = {binding.rpc.rpartition("/")[2]: binding for binding in bindings.read(FILES)}
# What tells apart two answers that are the same.
_REQUEST_ID: Final = re.compile(r"req_[0-9A-Za-z]+")
_HEADERS_LEFT_OUT: Final = {"date", "x-request-id", "x-ratelimit-remaining", "x-ratelimit-reset"}


@dataclass(frozen=True)
class Answer:
    """`status`: the name of a gRPC code, or of HTTP the number. `fields`: those that were refused."""

    status: str
    code: str
    message: str
    fields: tuple[str, ...]
    # The whole of it, without what differs from call to call.
    whole: str


def query_of(binding: Binding, fields: dict[str, Any]) -> tuple[str, bytes, bytes]:
    """Path, query and body of a request."""
    left = dict(fields)
    path = binding.path
    for name in binding.parameters:
        path = path.replace("{" + name + "}", left.pop(name))
    if binding.body:
        return path, b"", json.dumps(left).encode()
    return path, urlencode(left, doseq=True).encode(), b""


def message_of(name: str, fields: dict[str, Any]) -> Message:
    """The same as a message."""
    binding = ROUTES.get(name)
    if binding is None:
        return json_format.ParseDict(fields, message_class(METHODS[name].input_type)())
    _, query, body = query_of(binding, fields)
    return RequestDecoder(binding).decode([fields[each] for each in binding.parameters], query, [], body)


async def over_grpc(channel: Any, name: str, fields: dict[str, Any], metadata: Any) -> Answer:
    """Calls the RPC; of a stream the first message counts."""
    method = METHODS[name]
    path = f"/{method.containing_service.full_name}/{name}"
    request = message_of(name, fields)
    kind: dict[str, Any] = {
        "request_serializer": message_class(method.input_type).SerializeToString,
        "response_deserializer": message_class(method.output_type).FromString,
    }
    call: Any = None
    try:
        if method.client_streaming:
            call = channel.stream_stream(path, **kind)(metadata=metadata)
            if fields:
                await call.write(request)
            else:
                await call.done_writing()
            message = await call.read()
        elif method.server_streaming:
            call = channel.unary_stream(path, **kind)(request, metadata=metadata)
            message = await call.read()
        else:
            message = await channel.unary_unary(path, **kind)(request, metadata=metadata)
    except grpc.aio.AioRpcError as error:
        return _failed(error)
    finally:
        if call is not None:
            call.cancel()
    listed = [] if message is grpc.aio.EOF else [each.name for each, _ in message.ListFields()]
    return Answer("OK", "", "", (), "" if message is grpc.aio.EOF else f"{listed} {message}")


async def over_rest(client: httpx2.AsyncClient, name: str, fields: dict[str, Any], authorization: str | None) -> Answer:
    """The same request over HTTP; of a stream only its beginning counts."""
    binding = ROUTES[name]
    path, query, body = query_of(binding, fields)
    headers = {} if authorization is None else {"Authorization": authorization}
    if body:
        headers["Content-Type"] = "application/json"
    target = path.removeprefix("/v1") + (f"?{query.decode()}" if query else "")
    request = client.build_request(binding.http_method, target, content=body or None, headers=headers)
    answer = await client.send(request, stream=True)
    try:
        if binding.is_stream and answer.status_code == 200:
            return Answer("200", "", "", (), "a stream")
        await answer.aread()
    finally:
        await answer.aclose()
    kept = sorted((key, value) for key, value in answer.headers.items() if key not in _HEADERS_LEFT_OUT)
    whole = _REQUEST_ID.sub("req_", f"{answer.status_code} {kept} {answer.text}")
    error: dict[str, Any] = {} if answer.is_success else answer.json()["error"]
    refused = tuple(each["field"] for each in error.get("details", ()))
    return Answer(str(answer.status_code), error.get("code", ""), error.get("message", ""), refused, whole)


def _failed(error: grpc.aio.AioRpcError) -> Answer:
    trailing: dict[str, Any] = dict(error.trailing_metadata() or ())
    status = status_pb2.Status.FromString(trailing.get("grpc-status-details-bin", b""))
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in status.details:
        _ = detail.Unpack(info) or detail.Unpack(bad)
    whole = f"{error.code().name} {error.details()} {sorted(trailing)} {status}"
    refused = tuple(each.field for each in bad.field_violations)
    return Answer(error.code().name, info.reason, error.details() or "", refused, whole)

"""What is no credential at all is refused on every method; relayed calls pass the same checks. See tests/access."""

from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from agent_orchestration.v1 import access_pb2, access_pb2_grpc, relay_pb2, relay_pb2_grpc, tasks_pb2
from tests.access.calling import METHODS
from tests.api.conftest import Api


def name_of(method: Any) -> str:
    return f"/{method.containing_service.full_name}/{method.name}"


async def refusal_of(api: Api, method: Any, metadata: tuple[tuple[str, str], ...]) -> grpc.StatusCode:
    """The status of a call with an empty request."""
    channel: Any = api.channel
    try:
        if method.client_streaming:
            await channel.stream_stream(name_of(method))(metadata=metadata).read()
        elif method.server_streaming:
            await channel.unary_stream(name_of(method))(b"", metadata=metadata).read()
        else:
            await channel.unary_unary(name_of(method))(b"", metadata=metadata)
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def test_every_method_refuses_a_call_without_a_good_credential(api: Api) -> None:
    bad = ("", "Bearer", "Bearer ", "Bearer wrong", "Basic " + api.key, api.key, "Bearer " + "x" * 5000)
    answers = {
        (name_of(method), credential): await refusal_of(api, method, metadata)
        for method in METHODS.values()
        for credential, metadata in [("none", ()), *((each, (("authorization", each),)) for each in bad)]
    }
    assert answers == dict.fromkeys(answers, grpc.StatusCode.UNAUTHENTICATED)


async def test_a_relayed_call_passes_the_same_checks_as_one_that_came_alone(api: Api, tmp_path: Path) -> None:
    gateway = (("authorization", "Bearer " + (tmp_path / "data" / "gateway.key").read_text().strip()),)
    stub: Any = relay_pb2_grpc.RelayServiceStub(api.channel)
    get = "/agent_orchestration.v1.TaskService/GetTask"
    request = tasks_pb2.GetTaskRequest(task_id="task_missing").SerializeToString()
    calls = [
        relay_pb2.RelayCall(id=1, method=get, message=request),
        relay_pb2.RelayCall(id=2, method=get, message=request, metadata=dict(api.admin)),
        relay_pb2.RelayCall(id=3, method=get, message=b"\xff", metadata=dict(api.admin)),
        relay_pb2.RelayCall(id=4, method="/no/Method", metadata=dict(api.admin)),
        relay_pb2.RelayCall(id=5, method="/agent_orchestration.v1.TaskService/CreateTask", metadata=dict(api.admin)),
    ]
    stream = stub.Relay(metadata=gateway)
    await stream.write(relay_pb2.RelayRequest(calls=calls))
    statuses: dict[int, status_pb2.Status] = {}
    while len(statuses) < len(calls):
        response: relay_pb2.RelayResponse = await stream.read()
        statuses |= {reply.id: status_pb2.Status.FromString(reply.status) for reply in response.replies}
    await stream.done_writing()
    codes = {number: grpc.StatusCode(_pair(status.code)).name for number, status in statuses.items()}
    assert codes[1] == "UNAUTHENTICATED"
    assert codes[2] == "NOT_FOUND"
    assert codes[3] in ("INTERNAL", "INVALID_ARGUMENT")
    assert codes[4] == "UNIMPLEMENTED"
    assert codes[5] == "INVALID_ARGUMENT"
    fields = error_details_pb2.BadRequest()
    assert any(detail.Unpack(fields) for detail in statuses[5].details)
    assert [violation.field for violation in fields.field_violations] == ["agent_id", "type"]


async def test_a_gateway_learns_whom_a_users_key_stands_for_and_not_its_own(api: Api, tmp_path: Path) -> None:
    key = (tmp_path / "data" / "gateway.key").read_text().strip()
    gateway = (("authorization", f"Bearer {key}"),)
    stub: Any = access_pb2_grpc.AccessServiceStub(api.channel)
    response: access_pb2.AuthenticateResponse = await stub.Authenticate(
        access_pb2.AuthenticateRequest(credential=api.key), metadata=gateway
    )
    assert response.principal.project_id == "project_default"
    assert response.cache_for.ToMicroseconds() > 0
    for other in (key, "wrong", ""):
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await stub.Authenticate(access_pb2.AuthenticateRequest(credential=other), metadata=gateway)
        assert refusal.value.code() is grpc.StatusCode.UNAUTHENTICATED


def _pair(code: int) -> tuple[int, str]:
    return next(each.value for each in grpc.StatusCode if each.value[0] == code)

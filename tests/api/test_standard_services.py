"""What every gRPC tool asks first: is it healthy, and what is there? Neither takes a credential."""

from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from agent_orchestration.v1 import tasks_pb2
from tests.api.conftest import Api

OURS = {
    f"agent_orchestration.v1.{name}Service" for name in ("Agent", "Task", "Monitoring", "Runner", "Access", "Relay")
}


async def test_the_server_and_each_service_say_that_they_serve(api: Api) -> None:
    stub: Any = health_pb2_grpc.HealthStub(api.channel)
    for name in ("", *OURS):
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=name))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    try:
        await stub.Check(health_pb2.HealthCheckRequest(service="unknown"))
    except grpc.aio.AioRpcError as error:
        assert error.code() is grpc.StatusCode.NOT_FOUND


async def test_reflection_lists_the_services_and_gives_their_descriptors(api: Api) -> None:
    channel: Any = api.channel
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
    request = reflection_pb2.ServerReflectionRequest

    async def asked(**fields: Any) -> Any:
        async for answer in stub.ServerReflectionInfo(iter([request(**fields)])):
            return answer

    listed = (await asked(list_services="")).list_services_response.service
    assert {each.name for each in listed} >= OURS
    file = (await asked(file_containing_symbol="agent_orchestration.v1.TaskService")).file_descriptor_response
    assert tasks_pb2.DESCRIPTOR.serialized_pb in list(file.file_descriptor_proto)

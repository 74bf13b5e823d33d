"""A call that waits for something to happen ends with its credential, whenever that ends."""

import asyncio
from typing import Any

import grpc
from google.rpc import status_pb2

from agent_orchestration.rate_limits import Limits, RateLimits
from agent_orchestration.v1 import tasks_pb2
from ao_server.api import calls
from ao_server.api.methods import Methods
from ao_server.engine.ids import Ids
from tests.unit.test_access import SECRET, Clock, Store, a_key, access_over, changed

GET_TASK = "/agent_orchestration.v1.TaskService/GetTask"


class Waiting:
    """Looks for a task, then waits for ever. Of the service only what is called."""

    def __init__(self) -> None:
        self.looking = asyncio.Event()
        self.found = asyncio.Event()
        self.parked = asyncio.Event()

    async def GetTask(self, request: tasks_pb2.GetTaskRequest, context: Any) -> tasks_pb2.GetTaskResponse:
        self.looking.set()
        await self.found.wait()
        async with calls.parked():
            self.parked.set()
            await asyncio.Event().wait()
        raise AssertionError("nothing happens")


class Unrecorded:
    """No audit log: it is a read."""

    async def refused(self, *about: Any) -> None: ...

    def interrupted(self, *about: Any) -> None: ...


async def outcome_when_revoked(*, is_parked: bool) -> grpc.StatusCode:
    key = a_key()
    store = Store(key)
    access = access_over(store)
    recorder: Any = Unrecorded()
    methods = Methods(access, RateLimits(Limits(0, 0)), recorder, Ids(), Clock())
    servicer = Waiting()
    handler = grpc.unary_unary_rpc_method_handler(
        servicer.GetTask, tasks_pb2.GetTaskRequest.FromString, tasks_pb2.GetTaskResponse.SerializeToString
    )
    methods.add_registered_method_handlers("agent_orchestration.v1.TaskService", {"GetTask": handler})
    credential = {"authorization": f"Bearer {SECRET}"}
    parked: list[bool] = []
    call = asyncio.create_task(methods.relayed(GET_TASK, b"", credential, 30.0, parked.append))
    async with asyncio.timeout(5):
        await servicer.looking.wait()
        if is_parked:
            servicer.found.set()
            await servicer.parked.wait()
        store.row = changed(key, revoked_at=5)
        access.observe([(key, store.row)])
        await asyncio.sleep(0)
        servicer.found.set()
        status = await call
    assert isinstance(status, status_pb2.Status)
    assert sum(1 if each else -1 for each in parked) == 0
    return next(code for code in grpc.StatusCode if code.value[0] == status.code)


async def test_one_that_waits_ends() -> None:
    assert await outcome_when_revoked(is_parked=True) is grpc.StatusCode.UNAUTHENTICATED


async def test_one_that_was_about_to_wait_does_not_begin_to() -> None:
    assert await outcome_when_revoked(is_parked=False) is grpc.StatusCode.UNAUTHENTICATED

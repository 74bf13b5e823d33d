"""A real server given anything on a runner's stream: it refuses in good order, and nobody else notices."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any, Final

import grpc
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from agent_orchestration.v1 import agents_pb2, monitoring_pb2, runners_pb2, tasks_pb2
from tests.api.conftest import LEASE_SECONDS, Api, RawRunner, serving
from tests.fuzz.effort import fuzzed
from tests.fuzz.messages import MINE, THEIRS, bent, messages

DEADLINE: Final = 5.0
CONNECT: Final = "/agent_orchestration.v1.RunnerService/Connect"
REQUESTS: Final = messages(runners_pb2.ConnectRequest.DESCRIPTOR)
SENT: Final = st.lists(
    REQUESTS.map(lambda request: request.SerializeToString()) | bent(REQUESTS) | st.binary(max_size=8),
    max_size=6,
)


@dataclass
class Scene:
    """A server, an agent with a good process that holds a task and gets others, and somebody who watches it all."""

    api: Api
    agent_id: str
    good: RawRunner
    theirs: str
    watch: asyncio.Task[None]

    async def is_unharmed(self) -> None:
        """The good process works, its own task is as it was, and everything can still be read."""
        task_id = await self.api.create_task(self.agent_id)
        assert (await self.good.assigned()).attempt.task_id == task_id
        assert await self.good.finish(task_id, 1)
        theirs = await self.api.task(self.theirs)
        assert (theirs.status, theirs.attempt, len(theirs.logs)) == (tasks_pb2.TASK_STATUS_RUNNING, 1, 0)
        health = (await self.api.agent(self.agent_id)).health
        assert health.uptime.ToTimedelta().total_seconds() >= 0
        await self.api.agents.ListAgents(agents_pb2.ListAgentsRequest(limit=100), metadata=self.api.admin)
        await self.api.tasks.ListTasks(tasks_pb2.ListTasksRequest(limit=5), metadata=self.api.admin)
        assert not self.watch.done(), self.watch.exception()


@pytest.fixture
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Scene]:
    with capture_logs() as logged:
        async with serving(tmp_path_factory.mktemp("fuzz"), None) as api:
            agent_id = await api.create_agent()
            async with api.runner(agent_id, instance_id="good") as good:
                theirs = await api.create_task(agent_id)
                await good.assigned()
                tasks = [asyncio.create_task(each) for each in (_renew(good, theirs), _watch(api))]
                yield Scene(api, agent_id, good, theirs, tasks[1])
                assert await good.finish(theirs, 1)
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
    assert not [line for line in logged if line["log_level"] in ("error", "critical")]


async def _renew(runner: RawRunner, held: str) -> None:
    while True:
        await runner.status(held=[(held, 1)], last_assign=1)
        await asyncio.sleep(LEASE_SECONDS / 4)


async def _watch(api: Api) -> None:
    async for _ in api.monitoring.WatchEvents(monitoring_pb2.WatchEventsRequest(), metadata=api.admin):
        pass
    raise AssertionError("the stream of events ended")


# Not made smaller: one that hangs would be tried again and again.
@fuzzed(0.015, shrinks=False)
@given(SENT, st.sampled_from(["holding", "holding", "welcomed", "silent"]), st.booleans())
async def test_a_stream_is_refused_in_good_order_and_harms_nobody(
    scene: Scene, sent: list[bytes], beginning: str, waits: bool
) -> None:
    async with asyncio.timeout(DEADLINE):
        # Bytes as they are.
        channel: Any = scene.api.channel
        connect = channel.stream_stream(
            CONNECT, request_serializer=None, response_deserializer=runners_pb2.ConnectResponse.FromString
        )
        call = connect(metadata=scene.api.admin)
        mine = MINE
        if beginning != "silent":
            mine = await _attach(scene, call, beginning == "holding") or mine
        try:
            for each in sent:
                await call.write(_with_ids(each, {MINE: mine, THEIRS: scene.theirs}))
                if waits:
                    await asyncio.sleep(0)
            await call.done_writing()
            while await call.read() is not grpc.aio.EOF:
                pass
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            pass
        code, details = await call.code(), await call.details()
        # The client's own word for a write that came after the end.
        if details != "Internal error from Core":
            assert code not in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN), details
        await scene.is_unharmed()


async def _attach(scene: Scene, call: Any, holding: bool) -> str | None:
    """A hello as it should be; the task that is given to the process when it wants one."""
    hello = runners_pb2.Hello(
        agent_id=scene.agent_id, instance_id="fuzz", task_types=[agents_pb2.TaskType(name="fuzz")]
    )
    if holding:
        request = tasks_pb2.CreateTaskRequest(agent_id=scene.agent_id, type="fuzz")
        await scene.api.tasks.CreateTask(request, metadata=scene.api.admin)
    await call.write(runners_pb2.ConnectRequest(hello=hello).SerializeToString())
    message = await call.read()
    assert message.WhichOneof("message") == "welcome"
    if not holding:
        return None
    while message.WhichOneof("message") != "assign":
        message = await call.read()
    return message.assign.assignments[0].attempt.task_id


def _with_ids(sent: bytes, ids: dict[str, str]) -> bytes:
    """The message with the tasks' real ids, if it is one."""
    try:
        request = runners_pb2.ConnectRequest.FromString(sent)
    except DecodeError:
        return sent
    for attempt in _attempts(request):
        attempt.task_id = ids.get(attempt.task_id, attempt.task_id)
    return request.SerializeToString()


def _attempts(message: Any) -> list[runners_pb2.Attempt]:
    if isinstance(message, runners_pb2.Attempt):
        return [message]
    found: list[runners_pb2.Attempt] = []
    for field, value in message.ListFields():
        if field.message_type is not None:
            for each in value if field.is_repeated else [value]:
                found += _attempts(each)
    return found

"""A real server in this process, on both engines, and a runner that speaks the stream itself."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from agent_orchestration.environment import PREFIX
from agent_orchestration.v1 import (
    agents_pb2,
    agents_pb2_grpc,
    monitoring_pb2_grpc,
    runners_pb2,
    runners_pb2_grpc,
    tasks_pb2,
    tasks_pb2_grpc,
)
from ao_server import app, settings

LEASE_SECONDS = 3.0


@dataclass
class Api:
    """Stubs of one server, and the metadata of its admin."""

    address: str
    key: str
    channel: grpc.aio.Channel
    admin: tuple[tuple[str, str], ...] = field(init=False)

    def __post_init__(self) -> None:
        self.admin = (("authorization", f"Bearer {self.key}"),)
        self.agents: Any = agents_pb2_grpc.AgentServiceStub(self.channel)
        self.tasks: Any = tasks_pb2_grpc.TaskServiceStub(self.channel)
        self.monitoring: Any = monitoring_pb2_grpc.MonitoringServiceStub(self.channel)
        self.runners: Any = runners_pb2_grpc.RunnerServiceStub(self.channel)

    async def create_agent(self, name: str = "Agent", configuration: str = "{}") -> str:
        request = agents_pb2.CreateAgentRequest(name=name, type="worker", configuration=configuration)
        response: agents_pb2.CreateAgentResponse = await self.agents.CreateAgent(request, metadata=self.admin)
        return response.data.id

    async def create_task(self, agent_id: str, payload: str = "{}", **fields: Any) -> str:
        request = tasks_pb2.CreateTaskRequest(agent_id=agent_id, type="work", payload=payload, **fields)
        response: tasks_pb2.CreateTaskResponse = await self.tasks.CreateTask(request, metadata=self.admin)
        return response.data.id

    async def task(self, task_id: str) -> tasks_pb2.Task:
        response: tasks_pb2.GetTaskResponse = await self.tasks.GetTask(
            tasks_pb2.GetTaskRequest(task_id=task_id), metadata=self.admin
        )
        return response.data

    async def agent(self, agent_id: str) -> agents_pb2.Agent:
        request = agents_pb2.GetAgentRequest(agent_id=agent_id)
        response: agents_pb2.GetAgentResponse = await self.agents.GetAgent(request, metadata=self.admin)
        return response.data

    @asynccontextmanager
    async def runner(
        self, agent_id: str, *, instance_id: str = "instance_1", held: Sequence[tuple[str, int]] = (), **hello: Any
    ) -> AsyncGenerator["RawRunner", None]:
        """A raw runner that has been welcomed."""
        runner = RawRunner(self.runners.Connect(metadata=self.admin))
        try:
            await runner.hello(agent_id=agent_id, instance_id=instance_id, held=held, **hello)
            yield runner
        finally:
            runner.call.cancel()


class RawRunner:
    """One stream, spoken by hand. Renewals are passed over when waiting for something else."""

    def __init__(self, call: Any) -> None:
        self.call = call
        self.status_number = 0
        self._writing = asyncio.Lock()
        self._split: runners_pb2.ConnectResponse | None = None
        self.welcome = runners_pb2.Welcome()

    async def hello(
        self, *, held: Sequence[tuple[str, int]] = (), types: Sequence[str] = ("work",), **fields: Any
    ) -> None:
        await self.send(
            hello=runners_pb2.Hello(
                task_types=[agents_pb2.TaskType(name=name) for name in types],
                held=[attempt(*each) for each in held],
                **fields,
            )
        )
        self.welcome = (await self.receive("welcome")).welcome

    async def send(self, **message: Any) -> None:
        # A call takes one write at a time; some tests renew the lease beside what they do.
        async with self._writing:
            await self.call.write(runners_pb2.ConnectRequest(**message))

    async def receive(self, kind: str) -> runners_pb2.ConnectResponse:
        """The next message of this kind; anything else but a renewal is a failure."""
        async with asyncio.timeout(20):
            while True:
                message = await self.read()
                if message is grpc.aio.EOF:
                    raise AssertionError(f"the stream ended: {await self.call.code()} {await self.call.details()}")
                if message.WhichOneof("message") == kind:
                    return message
                assert message.WhichOneof("message") == "renewed", message

    async def read(self) -> Any:
        """The next message; what is settled together with an assignment as a message of its own in front of it."""
        if self._split is not None:
            message, self._split = self._split, None
            return message
        message = await self.call.read()
        if message is not grpc.aio.EOF and message.assign.settlements:
            self._split = message
            settled = runners_pb2.Settled(settlements=message.assign.settlements)
            return runners_pb2.ConnectResponse(settled=settled)
        return message

    async def assigned(self) -> runners_pb2.Assignment:
        """The one assignment of the next `assign`."""
        (assignment,) = (await self.receive("assign")).assign.assignments
        return assignment

    async def status(self, held: Sequence[tuple[str, int]] = (), last_assign: int = 0, capacity: int = 10) -> None:
        self.status_number += 1
        await self.send(
            status=runners_pb2.Status(
                number=self.status_number,
                held=[attempt(*each) for each in held],
                last_assign=last_assign,
                capacity=capacity,
            )
        )

    async def finish(self, task_id: str, number: int, **outcome: Any) -> bool:
        """Reports an outcome; whether it was accepted."""
        reported = runners_pb2.Outcome(attempt=attempt(task_id, number), **(outcome or {"result": '{"ok":true}'}))
        await self.send(outcomes=runners_pb2.Outcomes(outcomes=[reported]))
        (settlement,) = (await self.receive("settled")).settled.settlements
        return settlement.accepted

    async def ended(self) -> tuple[grpc.StatusCode, str]:
        """How the server ended the stream: code and details."""
        try:
            async with asyncio.timeout(20):
                while await self.call.read() is not grpc.aio.EOF:
                    pass
        except grpc.aio.AioRpcError as error:
            return error.code(), error.details() or ""
        return grpc.StatusCode.OK, ""


def attempt(task_id: str, number: int) -> runners_pb2.Attempt:
    return runners_pb2.Attempt(task_id=task_id, number=number)


@asynccontextmanager
async def serving(folder: Path, database_url: str | None, **changes: Any) -> AsyncGenerator[Api, None]:
    """`changes`: settings other than the usual ones of these tests."""
    chosen = settings.read(
        host="127.0.0.1",
        grpc_port=0,
        data_dir=str(folder / "data"),
        database_url=database_url,
        environment={
            f"{PREFIX}LEASE_SECONDS": str(LEASE_SECONDS),
            f"{PREFIX}RATE_LIMIT_PER_HOUR": "0",
            f"{PREFIX}RATE_LIMIT_PER_MINUTE": "0",
        },
    )
    async with app.serving(replace(chosen, **changes), asyncio.Event()) as server:
        key = (folder / "data" / "admin.key").read_text().strip()
        async with grpc.aio.insecure_channel(server.address) as channel:
            yield Api(server.address, key, channel)
        assert not server.stopped.is_set(), "the server could not go on"


@pytest.fixture
async def api(tmp_path: Path, database_url: str) -> AsyncGenerator[Api, None]:
    async with serving(tmp_path, database_url) as running:
        yield running

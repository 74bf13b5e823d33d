"""One control plane of real processes per engine, and each test over REST and over gRPC."""

import secrets
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx2
import pytest

from agent_orchestration.v1 import runners_pb2_grpc
from tests.api.conftest import RawRunner
from tests.conftest import postgres_database
from tests.contract.surfaces import Answer, Grpc, Rest, Surface
from tests.e2e.processes import ControlPlane

LEASE_SECONDS = 3


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def plane(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Generator[ControlPlane]:
    folder: Path = tmp_path_factory.mktemp("contract")
    environment = {"AGENT_ORCHESTRATION_LEASE_SECONDS": str(LEASE_SECONDS)}
    if request.param == "sqlite":
        with ControlPlane(folder, environment=environment) as plane:
            plane.start_dev()
            yield plane
    else:
        with postgres_database() as url, ControlPlane(folder, database_url=url, environment=environment) as plane:
            plane.start_dev()
            yield plane


@dataclass
class Api:
    """A surface, and a raw runner beside it."""

    surface: Surface
    runners: Any
    metadata: tuple[tuple[str, str], ...]

    async def get(self, path: str, **query: Any) -> Answer:
        return await self.surface.call("GET", path, query=query)

    async def post(self, path: str, body: Any = None, *, key: str | None = None) -> Answer:
        return await self.surface.call("POST", path, body, key=key)

    async def put(self, path: str, body: Any) -> Answer:
        return await self.surface.call("PUT", path, body)

    async def delete(self, path: str) -> Answer:
        return await self.surface.call("DELETE", path)

    async def agent(self, **fields: Any) -> str:
        """A new agent's id; its name and type are its own."""
        own = secrets.token_hex(6)
        answer = await self.post("/agents", {"name": f"Agent {own}", "type": f"type_{own}", **fields})
        assert answer.status == 201, answer
        return answer.data["id"]

    async def task(self, agent_id: str, **fields: Any) -> str:
        answer = await self.post("/tasks", {"agent_id": agent_id, "type": "work", **fields})
        assert answer.status == 201, answer
        return answer.data["id"]

    async def shown(self, task_id: str) -> Any:
        return (await self.get(f"/tasks/{task_id}")).data

    @asynccontextmanager
    async def runner(
        self, agent_id: str, instance_id: str = "instance_1", types: Sequence[str] = ("work",)
    ) -> AsyncGenerator[RawRunner]:
        """A process of the agent that has been welcomed."""
        async with self._connected(agent_id=agent_id, instance_id=instance_id, types=types) as runner:
            yield runner

    @asynccontextmanager
    async def named_runner(self, type_: str, name: str) -> AsyncGenerator[RawRunner]:
        """A process that says hello with a type and a name, welcomed."""
        async with self._connected(type=type_, name=name, instance_id="instance_named") as runner:
            yield runner

    @asynccontextmanager
    async def _connected(self, **hello: Any) -> AsyncGenerator[RawRunner]:
        runner = RawRunner(self.runners.Connect(metadata=self.metadata))
        try:
            await runner.hello(**hello)
            yield runner
        finally:
            runner.call.cancel()


@pytest.fixture(params=["rest", "grpc"])
async def api(request: pytest.FixtureRequest, plane: ControlPlane) -> AsyncGenerator[Api]:
    metadata = (("authorization", f"Bearer {plane.api_key}"),)
    async with (
        grpc.aio.insecure_channel(plane.grpc_address) as channel,
        httpx2.AsyncClient(
            base_url=plane.rest_url,
            headers={"Authorization": f"Bearer {plane.api_key}"},
            timeout=90.0,
            trust_env=False,
        ) as client,
    ):
        surface = Rest(client) if request.param == "rest" else Grpc(channel, plane.api_key)
        yield Api(surface, runners_pb2_grpc.RunnerServiceStub(channel), metadata)

"""A server and a gateway in this process, with two projects in the store: one's own, and another's."""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2

from agent_orchestration.rate_limits import Limits, RateLimits
from agent_orchestration.scopes import ADMIN, SCOPES
from ao_gateway.app import Gateway
from ao_gateway.listening import listen, url
from ao_gateway.server import GatewayServer
from tests.api.conftest import Api
from tests.api.conftest import serving as serving_api

DEADLINE = 20.0
SOON = 0.02
Metadata = tuple[tuple[str, str], ...]


def bearer(credential: str) -> Metadata:
    return (("authorization", f"Bearer {credential}"),)


@dataclass
class Project:
    """A project, and how its admin speaks over REST."""

    id: str
    admin: str
    client: httpx2.AsyncClient

    async def call(self, method: str, path: str, body: Any = None, key: str | None = None) -> Any:
        """The answer to a request that must succeed."""
        headers = {"Authorization": f"Bearer {key or self.admin}"}
        answer = await self.client.request(method, path, json=body, headers=headers)
        assert answer.is_success, (method, path, answer.text)
        return answer.json()

    async def post(self, path: str, body: Any = None) -> Any:
        """What was made."""
        return (await self.call("POST", path, body if body is not None else {}))["data"]

    async def key(self, *scopes: str, **fields: Any) -> Any:
        """A new API key."""
        return await self.post("/keys", {"name": "k", "scopes": scopes, **fields})

    async def agent(self, **fields: Any) -> str:
        own = secrets.token_hex(4)
        return (await self.post("/agents", {"name": f"agent {own}", "type": f"type_{own}", **fields}))["id"]

    async def task(self, agent_id: str | None = None, **fields: Any) -> str:
        target = {} if "agent_type" in fields else {"agent_id": agent_id or await self.agent()}
        return (await self.post("/tasks", {**target, "type": "work", **fields}))["id"]


@dataclass
class World:
    """The two, the default project that made them, and the gateway's own key."""

    api: Api
    client: httpx2.AsyncClient
    gateway: Gateway
    port: int
    default: Project
    own: Project
    other: Project
    gateway_key: str
    folder: Path

    @property
    def ws_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/v1/ws"

    def as_(self, project: Project) -> Api:
        """The stubs with the project's admin key."""
        return Api(self.api.address, project.admin, self.api.channel)

    async def project(self, name: str) -> Project:
        made = await self.default.post("/projects", {"name": name})
        return Project(made["id"], made["api_key"]["key"], self.client)


@dataclass
class Credentials:
    """One of each kind, in one's own project. Good ones by the scope that they hold."""

    by_scope: dict[str, str] = field(default_factory=dict[str, str])
    bad: dict[str, str] = field(default_factory=dict[str, str])
    good: dict[str, str] = field(default_factory=dict[str, str])


async def credentials(world: World) -> Credentials:
    """Makes one of each, and waits until those that are to end have ended."""
    own = world.own
    made = Credentials()
    for scope in SCOPES:
        made.by_scope[scope] = (await own.key(scope))["key"]
    expired = await own.key(ADMIN, expires_in=0.05)
    revoked = await own.key(ADMIN)
    await own.call("DELETE", f"/keys/{revoked['id']}")
    rotated = await own.key(ADMIN)
    fresh = await own.post(f"/keys/{rotated['id']}/rotate", {"overlap": 0})
    overlapping = await own.key(ADMIN)
    await own.post(f"/keys/{overlapping['id']}/rotate", {"overlap": 3600})
    made.bad |= {"expired": expired["key"], "revoked": revoked["key"], "rotated out": rotated["key"]}
    made.bad |= {"garbage": "ao_live_" + "x" * 43, "an id": revoked["id"], "a prefix": fresh["key"][:12]}
    made.good |= {"fresh": fresh["key"], "within the overlap": overlapping["key"]}
    await until(lambda: _is_over(expired["expires_at"]))
    return made


def _is_over(expires_at: str) -> bool:
    return datetime.now(UTC) > datetime.fromisoformat(expires_at)


async def until(condition: Callable[[], bool]) -> None:
    """Waits for what nothing signals."""
    async with asyncio.timeout(DEADLINE):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(SOON)


@asynccontextmanager
async def world(folder: Path, database_url: str | None = None, **changes: Any) -> AsyncGenerator[World]:
    """`changes`: settings of the server other than the usual ones."""
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(serving_api(folder, database_url, **changes))
        key = (folder / "data" / "gateway.key").read_text().strip()
        gateway, port = await stack.enter_async_context(gateway_of(api.address, key))
        base = f"http://127.0.0.1:{port}/v1"
        client = await stack.enter_async_context(httpx2.AsyncClient(base_url=base, timeout=DEADLINE, trust_env=False))
        default = Project("project_default", api.key, client)
        made = [await default.post("/projects", {"name": name}) for name in ("own", "other")]
        own, other = (Project(each["id"], each["api_key"]["key"], client) for each in made)
        yield World(api, client, gateway, port, default, own, other, key, folder)


@asynccontextmanager
async def gateway_of(address: str, key: str) -> AsyncGenerator[tuple[Gateway, int]]:
    sockets = listen("127.0.0.1", 0)
    gateway = Gateway(address, lambda: key, RateLimits(Limits(0, 0)))
    server = GatewayServer(gateway)
    task = asyncio.create_task(server.serve(sockets))
    try:
        async with asyncio.timeout(DEADLINE):
            await server.is_serving.wait()
            await gateway.relay.connected.wait()
        yield gateway, int(url(sockets[0]).removesuffix("/v1").rsplit(":", 1)[1])
    finally:
        server.stop()
        async with asyncio.timeout(DEADLINE):
            await task

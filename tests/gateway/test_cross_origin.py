"""Pages of other origins, and what browsers are told of every answer, whatever went wrong."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Final

import httpx2
import pytest
from google.rpc import code_pb2, status_pb2

from agent_orchestration.v1 import relay_pb2
from ao_gateway import bindings, cors, settings
from ao_gateway.app import FILES
from tests.gateway.conftest import DEADLINE, Running, serving
from tests.gateway.scripted import ScriptedServer, refused

APP: Final = "https://app.example.com"
OTHER: Final = "https://app.example.com.evil.example"
PREFLIGHT: Final = {"Origin": APP, "Access-Control-Request-Method": "POST"}


@pytest.fixture
async def shared(upstream: ScriptedServer) -> AsyncGenerator[Running]:
    """A gateway whose answers pages of APP may read."""
    async with serving(upstream, origins=[APP, "http://localhost:5173"]) as running:
        await running.connected()
        yield running


def user(running: Running, key: str | None = "ao_live_one") -> httpx2.AsyncClient:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    return httpx2.AsyncClient(base_url=running.url, headers=headers, timeout=DEADLINE, trust_env=False)


async def answers(running: Running, origin: str | None) -> AsyncGenerator[tuple[str, httpx2.Headers]]:
    """An answer of every kind to a request of the origin, as what it is and its headers."""
    said = {} if origin is None else {"Origin": origin}

    def answering(status: bytes | status_pb2.Status) -> None:
        async def answer(call: relay_pb2.RelayCall) -> bytes | status_pb2.Status:
            return status

        running.upstream.answer = answer

    async with user(running) as client, user(running, None) as stranger:
        client.headers.update(said)
        stranger.headers.update(said)
        many = [("Authorization", "Bearer x")] * 2
        for status, response in (
            (200, await client.get("/agents/agent_1")),
            (201, await client.post("/agents", json={"name": "n", "type": "t"})),
            (200, await client.head("/agents/agent_1")),
            (200, await stranger.get("/openapi.json")),
            (200, await stranger.get(f"{running.url.removesuffix('/v1')}/docs")),
            (200, await stranger.get(f"{running.url.removesuffix('/v1')}/livez")),
            (400, await client.get("/agents?limit=x")),
            (400, await client.get("/ws")),
            (401, await stranger.get("/agents")),
            (401, await stranger.get("/agents", headers=many)),
            (404, await client.get("/nothing")),
            (405, await client.delete("/agents")),
            (405, await client.options("/agents")),
            (413, await client.post("/agents", content=b" " * (5 << 20), headers={"Content-Type": "application/json"})),
            (415, await client.post("/agents", content=b"{}", headers={"Content-Type": "text/plain"})),
        ):
            assert response.status_code == status
            yield f"{response.request.method} {response.request.url} {status}", response.headers
        for status, code in (
            (409, code_pb2.ABORTED),
            (429, code_pb2.RESOURCE_EXHAUSTED),
            (500, code_pb2.INTERNAL),
            (503, code_pb2.UNAVAILABLE),
        ):
            answering(refused(code, "reason"))
            response = await client.get("/agents/agent_1")
            assert response.status_code == status
            yield str(status), response.headers
        # A fault of the gateway itself.
        answering(b"\xff not a message")
        response = await client.get("/agents/agent_1")
        assert response.status_code == 500
        yield "fault", response.headers
        async with client.stream("GET", "/events?channel=system_events") as stream:
            assert stream.status_code == 200
            yield "stream", stream.headers
        running.upstream.scopes = ["tasks:read"]
        running.upstream.keys["ao_live_weak"] = "project_1"
        async with user(running, "ao_live_weak") as weak:
            response = await weak.get("/agents", headers=said)
            assert response.status_code == 403
            yield "403", response.headers
    line = f"Origin: {origin}\r\n" if origin is not None else ""
    for name, request in (
        ("malformed", f"GET /v1/agents HTTP/1.1\r\n{line}Host: x\r\nBad Header\r\n\r\n"),
        ("large head", f"GET /v1/agents HTTP/1.1\r\n{line}X: {'x' * 70_000}\r\n\r\n"),
    ):
        yield name, await raw(running, request, 400)
    upgrade = f"GET /v1/ws HTTP/1.1\r\nHost: x\r\n{line}Connection: Upgrade\r\nUpgrade: websocket\r\n"
    yield "bad handshake", await raw(running, f"{upgrade}\r\n", 400)
    whole = f"{upgrade}Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {'A' * 22}==\r\n\r\n"
    yield "handshake", await raw(running, whole, 101)


async def raw(running: Running, request: str, status: int) -> httpx2.Headers:
    async with asyncio.timeout(DEADLINE):
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(request.encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        writer.close()
    first, *lines = head.rstrip("\r\n").split("\r\n")
    assert first.split(" ")[1] == str(status), head
    return httpx2.Headers([(name, value) for name, _, value in (line.partition(": ") for line in lines)])


async def test_every_answer_is_guarded(running: Running) -> None:
    async for name, headers in answers(running, APP):
        assert headers["x-content-type-options"] == "nosniff", name
        assert headers["x-frame-options"] == "DENY", name
        assert headers["referrer-policy"] == "no-referrer", name
        # The gateway has no TLS here, and nobody is allowed but by the setting.
        assert not headers.keys() & {"server", "strict-transport-security", "access-control-allow-origin", "vary"}, name
        if name == "handshake":
            continue
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy, name
        assert "frame-ancestors 'none'" in policy, name
        is_public = name.endswith(("/docs 200", "/v1/openapi.json 200"))
        assert headers.get_list("cache-control") == ["no-cache" if is_public else "no-store"], name


async def test_an_allowed_page_can_read_every_answer(shared: Running) -> None:
    async for name, headers in answers(shared, APP):
        if name == "handshake":
            continue
        assert headers.get_list("access-control-allow-origin") == [APP], name
        assert headers.get_list("vary") == ["Origin"], name
        exposed = headers["access-control-expose-headers"]
        assert {"X-RateLimit-Remaining", "Retry-After", "X-Request-Id", "Idempotent-Replayed"} <= {*exposed.split(", ")}
        assert "access-control-allow-credentials" not in headers


@pytest.mark.parametrize("origin", [None, OTHER, "null", "http://app.example.com", "*", ""])
async def test_others_cannot_and_caches_are_told_so(shared: Running, origin: str | None) -> None:
    async for name, headers in answers(shared, origin):
        assert "access-control-allow-origin" not in headers, name
        assert name == "handshake" or headers["vary"] == "Origin", name


async def test_a_preflight_needs_no_credential_and_is_true_for_every_path(shared: Running) -> None:
    async with user(shared, None) as stranger:
        for path in ("/agents", "/tasks/task_1", "/nothing", "/events"):
            response = await stranger.options(path, headers=PREFLIGHT)
            assert (response.status_code, response.content) == (200, b"")
            assert response.headers["access-control-allow-origin"] == APP
            methods = response.headers["access-control-allow-methods"].split(", ")
            assert {binding.http_method for binding in bindings.read(FILES)} <= {*methods}
            allowed = response.headers["access-control-allow-headers"].split(", ")
            assert {"Authorization", "Content-Type"} <= {*allowed}
        assert (await stranger.options("/agents", headers=PREFLIGHT | {"Origin": OTHER})).status_code == 405
        assert (await stranger.options("/agents", headers={"Origin": APP})).status_code == 405
    assert shared.upstream.authenticated == []
    assert shared.upstream.calls == []


def test_pages_may_send_and_read_all_headers_of_the_contract() -> None:
    sent = {header for binding in bindings.read(FILES) for header in bindings.header_fields(binding.request).values()}
    assert sent <= {*cors.REQUEST_HEADERS}


async def test_a_star_allows_every_page(upstream: ScriptedServer) -> None:
    async with serving(upstream, origins=["*"]) as running:
        await running.connected()
        async with user(running) as client:
            response = await client.get("/agents/agent_1", headers={"Origin": "null"})
            assert response.headers["access-control-allow-origin"] == "*"
            assert "vary" not in response.headers
            assert (await client.options("/nothing", headers=PREFLIGHT)).status_code == 200


@pytest.mark.parametrize(
    "wrong",
    [
        *("https://app.example.com/", "https://App.example.com", "https://app.example.com:443", "http://x:80", "x.com"),
        *("*,https://x.com", "https://*.example.com", "null", "https://u@x.com", "https://x.com?", "https://x.com:"),
        *("https://é.example", "https://x y", "https://x:99999", "://x", "https://"),
    ],
)
def test_an_origin_that_no_browser_sends_ends_the_start(wrong: str) -> None:
    with pytest.raises(settings.CannotStart, match="AGENT_ORCHESTRATION_CORS_ORIGINS"):
        settings.read(
            host="127.0.0.1",
            port=0,
            server=None,
            data_dir=None,
            insecure=False,
            environment={"AGENT_ORCHESTRATION_CORS_ORIGINS": wrong},
        )

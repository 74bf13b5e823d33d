"""REST over real sockets: the order of checks, the shape of errors, the limits."""

import asyncio
import json
import re
from typing import Any

import httpx2
import pytest
from google.rpc import code_pb2, status_pb2

from agent_orchestration.v1 import agents_pb2, relay_pb2
from tests.gateway.conftest import DEADLINE, Running
from tests.gateway.scripted import refused

JSON = {"Content-Type": "application/json"}
AUTHORIZATION = b"Authorization: Bearer ao_live_one\r\n"


def error(response: httpx2.Response) -> dict[str, Any]:
    body = response.json()["error"]
    assert body.keys() == {"code", "message", "details", "request_id"}
    assert body["request_id"] == response.headers["x-request-id"]
    return body


async def test_a_call_goes_to_the_server_as_the_user(client: httpx2.AsyncClient, running: Running) -> None:
    response = await client.get("/agents/agent_1")
    assert response.status_code == 200
    assert response.json()["data"]["id"] == "agent_1"
    (call,) = running.upstream.calls
    assert call.method == "/agent_orchestration.v1.AgentService/GetAgent"
    assert agents_pb2.GetAgentRequest.FromString(call.message).agent_id == "agent_1"
    assert call.metadata["authorization"] == "Bearer ao_live_one"
    assert call.metadata["x-request-id"] == response.headers["x-request-id"]
    assert re.fullmatch("req_[0-9a-hjkmnp-tv-z]{26}", response.headers["x-request-id"])
    assert 0 < call.timeout.ToSeconds() <= 30


async def test_a_create_answers_201_and_head_answers_as_get(client: httpx2.AsyncClient) -> None:
    response = await client.post("/agents", json={"name": "n", "type": "t"})
    assert response.status_code == 201
    head = await client.head("/agents/agent_1")
    assert (head.status_code, head.content) == (200, b"")
    assert int(head.headers["content-length"]) == len((await client.get("/agents/agent_1")).content)


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "not_found"),
        ("GET", "/agents/", 404, "not_found"),
        ("GET", "/agents/%00", 404, "not_found"),
        ("GET", "/agents/%ff", 404, "not_found"),
        ("DELETE", "/agents", 405, "method_not_allowed"),
        ("OPTIONS", "/agents", 405, "method_not_allowed"),
        ("TRACE", "/agents/x", 405, "method_not_allowed"),
        ("POST", "/ws", 405, "method_not_allowed"),
        ("GET", "/ws", 400, "validation_error"),
        ("GET", "/agents?limit=x", 400, "validation_error"),
        ("GET", "/agents/x?y=1", 400, "validation_error"),
    ],
)
async def test_what_is_refused(client: httpx2.AsyncClient, method: str, path: str, status: int, code: str) -> None:
    response = await client.request(method, path)
    assert (response.status_code, error(response)["code"]) == (status, code)
    assert ("allow" in response.headers) == (status == 405)


async def test_path_and_method_come_before_the_credential(running: Running) -> None:
    async with httpx2.AsyncClient(base_url=running.url, trust_env=False) as stranger:
        assert (await stranger.get("/nothing")).status_code == 404
        assert (await stranger.delete("/agents")).status_code == 405
        response = await stranger.post("/agents", content=b"not json")
        assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer")


@pytest.mark.parametrize(
    "values",
    [
        [],
        [b"Bearer ao_live_unknown"],
        [b"Bearer"],
        [b"Bearer a b"],
        [b"Basic ao_live_one"],
        ["Bearer ao_live_\u00e9".encode()],
        [b"Bearer ao_live_\xe9"],
        [b"Bearer ao_live_one\x01"],
        [b"Bearer ao_live_one", b"Bearer ao_live_one"],
        [b"Bearer " + b"a" * 10_000],
    ],
)
async def test_odd_credentials_are_401(running: Running, values: list[bytes]) -> None:
    lines = b"".join(b"Authorization: " + value + b"\r\n" for value in values)
    answer = await talk(running, b"GET /v1/agents HTTP/1.1\r\nHost: x\r\n" + lines + b"\r\n")
    assert answer.startswith((b"HTTP/1.1 401 ", b"HTTP/1.1 400 "))
    if values != [b"Bearer ao_live_one\x01"]:
        assert answer.startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize("scheme", [b"bearer", b"BEARER", b"Bearer  "])
async def test_the_scheme_is_not_case_sensitive(running: Running, scheme: bytes) -> None:
    head = b"GET /v1/agents/x HTTP/1.1\r\nHost: x\r\nAuthorization: " + scheme + b" ao_live_one\r\n\r\n"
    assert (await talk(running, head)).startswith(b"HTTP/1.1 200 ")


async def test_a_credential_is_asked_for_once(client: httpx2.AsyncClient, running: Running) -> None:
    await asyncio.gather(*(client.get("/agents/x") for _ in range(20)))
    assert running.upstream.authenticated == ["ao_live_one"]


@pytest.mark.parametrize(
    ("headers", "content", "status"),
    [
        ({}, b"{}", 415),
        ({"Content-Type": "text/plain"}, b"{}", 415),
        ({"Content-Type": "application/json; charset=latin-1"}, b"{}", 415),
        (JSON | {"Content-Encoding": "gzip"}, b"{}", 415),
        ({"Content-Type": "Application/JSON; charset=UTF-8"}, b"{}", 201),
        ({}, b"", 201),
        (JSON, b"[]", 400),
        (JSON, b"{}" + b" " * 4 * 1024 * 1024, 413),
        (JSON, b'{"unknown": "' + b"x" * 100_000 + b'"}', 400),
    ],
)
async def test_the_body(client: httpx2.AsyncClient, headers: dict[str, str], content: bytes, status: int) -> None:
    response = await client.post("/agents", headers=headers, content=content)
    assert response.status_code == status
    if status != 201:
        error(response)


@pytest.mark.parametrize(
    ("given", "taken"), [("my-id.1", True), ("a" * 128, True), ("a" * 129, False), ("a b", False), ("", False)]
)
async def test_a_request_id_of_the_clients_own(client: httpx2.AsyncClient, given: str, taken: bool) -> None:
    response = await client.get("/nothing", headers={"X-Request-Id": given})
    assert (response.headers["x-request-id"] == given) == taken
    error(response)


async def test_the_servers_refusals_keep_their_code(client: httpx2.AsyncClient, running: Running) -> None:
    async def not_found(call: relay_pb2.RelayCall) -> bytes | status_pb2.Status:
        return refused(code_pb2.NOT_FOUND, "not_found", "there is no such agent")

    running.upstream.answer = not_found
    response = await client.get("/agents/x")
    assert (response.status_code, error(response)["message"]) == (404, "there is no such agent")


async def test_an_inner_fault_tells_nothing(client: httpx2.AsyncClient, running: Running) -> None:
    async def broken(call: relay_pb2.RelayCall) -> bytes | status_pb2.Status:
        return refused(code_pb2.INTERNAL, "internal_error", "Traceback: secret")

    running.upstream.answer = broken
    response = await client.get("/agents/x")
    assert (response.status_code, error(response)["code"]) == (500, "internal_error")
    assert "secret" not in response.text


async def test_pipelined_requests_and_an_upgrade_that_is_not_ours(running: Running) -> None:
    body = b'{"name": "n", "type": "t"}'
    post = (
        b"POST /v1/agents HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\n"
        b"HTTP2-Settings: AA\r\nContent-Type: application/json\r\n"
        + AUTHORIZATION
        + b"Content-Length: %d\r\n\r\n" % len(body)
        + body
    )
    get = b"GET /v1/agents/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + AUTHORIZATION + b"\r\n"
    answer = await talk(running, post + get)
    assert re.findall(rb"HTTP/1.1 ([0-9]+)", answer) == [b"201", b"200"]
    assert agents_pb2.CreateAgentRequest.FromString(running.upstream.calls[0].message).name == "n"


@pytest.mark.parametrize("credential", [AUTHORIZATION, b""])
@pytest.mark.parametrize("chunked", [False, True])
async def test_an_early_refusal_can_be_read(running: Running, credential: bytes, chunked: bool) -> None:
    head = (
        b"POST /v1/agents HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n" + credential
    )
    content = b"x" * 6_000_000
    if chunked:
        body = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(content) + content + b"\r\n0\r\n\r\n"
    else:
        body = b"Content-Length: %d\r\n\r\n" % len(content) + content
    answer = await talk(running, head + body)
    assert answer.startswith(b"HTTP/1.1 413 " if credential else b"HTTP/1.1 401 ")
    assert b'"request_id":' in answer


async def test_expect_100_continue(running: Running) -> None:
    head = b"POST /v1/agents HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Type: application/json\r\n"
    answer = await talk(running, head + AUTHORIZATION + b"Content-Length: 5000000\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413 ")
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    writer.write(head + AUTHORIZATION + b"Content-Length: 2\r\nConnection: close\r\n\r\n")
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b"{}")
    assert (await reader.read()).startswith(b"HTTP/1.1 201 ")
    writer.close()


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /v1/agents HTTP/1.1\r\nX: " + b"a" * 70_000 + b"\r\n\r\n", b"400"),
        (b"GET /v1/agents HTTP/1.1\r\nX: " + b"a" * 300_000, b"400"),
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET /v1/\xff HTTP/1.1\r\n\r\n", b"400"),
        (b"GET /v1/other HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", b"404"),
        (b"GET /v1/ws HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", b"400"),
    ],
)
async def test_what_never_reaches_the_application(running: Running, request_bytes: bytes, status: bytes) -> None:
    answer = await talk(running, request_bytes)
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["request_id"].startswith("req_")


async def talk(running: Running, sent: bytes) -> bytes:
    """What comes back until the connection is quiet: closed, or an answer whole."""
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    try:
        async with asyncio.timeout(DEADLINE):
            writer.write(sent)
            await writer.drain()
            if b"Connection: close" in sent or not sent.startswith((b"GET /v1/agents", b"POST")):
                return await reader.read()
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: ([0-9]+)", head)
            return head + await reader.readexactly(int(length[1]) if length else 0)
    finally:
        writer.close()

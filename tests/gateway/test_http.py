"""REST over real sockets: the order of checks, the shape of errors, the limits."""

import asyncio
import json
import re
from typing import Any

import httpx2
import pytest
from google.rpc import code_pb2, status_pb2

from agent_orchestration.v1 import agents_pb2, relay_pb2, tasks_pb2
from ao_gateway import body as body_module
from ao_gateway import http_protocol
from tests.gateway.conftest import DEADLINE, Running, until
from tests.gateway.scripted import refused

JSON = {"Content-Type": "application/json"}
AUTHORIZATION = b"Authorization: Bearer ao_live_one\r\n"
LAST_GET = b"GET /v1/agents/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + AUTHORIZATION + b"\r\n"
ODD_VALUES = ["\u00e9".encode()], [b"\xe9"], [b"a\tb"], [b"a\x01"], [b"a" * 8192], [b""], [b"a", b"b"]


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
        ("PROPFIND", "/agents", 405, "method_not_allowed"),
        ("PATCH", "/agents/x", 405, "method_not_allowed"),
        ("POST", "/events", 405, "method_not_allowed"),
        ("PUT", "/agents/x?name=n", 400, "validation_error"),
    ],
)
async def test_what_is_refused(client: httpx2.AsyncClient, method: str, path: str, status: int, code: str) -> None:
    response = await client.request(method, path)
    assert (response.status_code, error(response)["code"]) == (status, code)
    assert ("allow" in response.headers) == (status == 405)


async def test_a_path_is_taken_as_it_is_written(running: Running) -> None:
    for path in (b"/v1/agents/", b"//v1/agents", b"/V1/agents", b"/v1/agents/?", b"/v1/../v1/agents", b"/v1/./agents"):
        answer = await talk(running, LAST_GET.replace(b"/v1/agents/x", path))
        assert answer.startswith(b"HTTP/1.1 404 "), path
        assert b"location:" not in answer
    for path in (b"/v1/agents?", b"http://x/v1/agents", b"/v1/agents/..", b"/v1/agents/%2F"):
        answer = await talk(running, LAST_GET.replace(b"/v1/agents/x", path))
        assert answer.startswith(b"HTTP/1.1 200 "), path


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


@pytest.mark.parametrize("protocol", [b"h2c", b"websocket"])
@pytest.mark.parametrize("chunked", [False, True])
async def test_pipelined_requests_and_an_upgrade_that_is_not_ours(
    running: Running, protocol: bytes, chunked: bool
) -> None:
    body = b'{"name": "n", "type": "t"}'
    post = (
        b"POST /v1/agents HTTP/1.1\r\nHost: x\r\nUpgrade: " + protocol + b"\r\nConnection: Upgrade, HTTP2-Settings\r\n"
        b"HTTP2-Settings: AA\r\nContent-Type: application/json\r\n" + AUTHORIZATION
    )
    if chunked:
        post += b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n"
    else:
        post += b"Content-Length: %d\r\n\r\n" % len(body) + body
    answer = await talk(running, post + LAST_GET)
    assert re.findall(rb"HTTP/1.1 ([0-9]+)", answer) == [b"201", b"200"]
    assert agents_pb2.CreateAgentRequest.FromString(running.upstream.calls[0].message).name == "n"


async def test_a_refused_connect_does_not_end_the_connection(running: Running) -> None:
    answer = await talk(running, b"CONNECT /v1/agents HTTP/1.1\r\nHost: x\r\n\r\n" + LAST_GET)
    assert re.findall(rb"HTTP/1.1 ([0-9]+)", answer) == [b"405", b"200"]


@pytest.mark.parametrize(
    "behind", [b"garbage\r\n\r\n", b"GET /v1/agents HTTP/1.1\r\nX: " + b"a" * 70_000 + b"\r\n\r\n"]
)
async def test_what_cannot_be_read_does_not_take_the_answer_of_an_earlier_request(
    running: Running, behind: bytes
) -> None:
    first = LAST_GET.replace(b"close", b"keep-alive")
    answer = await talk(running, first + behind, to_the_end=True)
    assert re.findall(rb"HTTP/1.1 ([0-9]+)", answer) == [b"200"]


@pytest.mark.parametrize(("body", "after_a_while"), [(b"", b"{"), (b"{", b"")])
async def test_a_body_that_stops_half_way_is_given_up(
    running: Running, monkeypatch: pytest.MonkeyPatch, body: bytes, after_a_while: bytes
) -> None:
    monkeypatch.setattr(body_module, "GAP_SECONDS", 0.1)
    head = b"POST /v1/agents HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n"
    answer = await talk(running, head + AUTHORIZATION + b"\r\n" + body, after_a_while, to_the_end=True)
    assert answer.startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize(("sent", "answers"), [(b"GET /v1/agents HTTP/1.1\r\nHost:", [b"408"]), (b"", [])])
async def test_a_head_that_does_not_come_is_given_up(
    running: Running, monkeypatch: pytest.MonkeyPatch, sent: bytes, answers: list[bytes]
) -> None:
    monkeypatch.setattr(http_protocol, "HEAD_SECONDS", 0.1)
    answer = await talk(running, sent, to_the_end=True)
    assert re.findall(rb"HTTP/1.1 ([0-9]+)", answer) == answers


async def test_an_answer_that_nobody_takes_is_not_kept_for_ever(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_protocol, "STALLED_SECONDS", 0.1)

    async def large(call: relay_pb2.RelayCall) -> bytes | status_pb2.Status:
        response = agents_pb2.GetAgentResponse()
        response.data.name = "x" * 15_000_000
        return response.SerializeToString()

    running.upstream.answer = large
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port, limit=1024)
    writer.write(LAST_GET)
    await reader.readuntil(b"\r\n")
    await until(lambda: not running.server.server_state.connections)
    writer.close()


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
async def test_probes_need_no_credential_and_say_whether_the_server_is_there(running: Running, path: str) -> None:
    root = running.url.removesuffix("/v1")
    async with httpx2.AsyncClient(base_url=root, trust_env=False, headers={"Authorization": "nonsense"}) as stranger:
        response = await stranger.get(path)
        assert (response.status_code, response.json()) == (200, {"status": "ok"})
        assert (await stranger.head(path)).headers["content-length"] == str(len(response.content))
        refused = await stranger.post(path)
        assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")
        await running.upstream.stop()
        await until(lambda: not running.gateway.relay.connected.is_set())
        response = await stranger.get(path)
        assert response.status_code == (200 if path == "/livez" else 503)
        if path == "/readyz":
            assert error(response)["code"] == "unavailable"


async def test_a_replayed_answer_says_so_in_a_header_alone(client: httpx2.AsyncClient, running: Running) -> None:
    keys: list[str] = []

    async def replay(call: relay_pb2.RelayCall) -> bytes | status_pb2.Status:
        keys.append(tasks_pb2.CreateTaskRequest.FromString(call.message).idempotency_key)
        return tasks_pb2.CreateTaskResponse(idempotent_replayed=len(keys) > 1).SerializeToString()

    running.upstream.answer = replay
    answers = [await client.post("/tasks", json={}, headers={"Idempotency-Key": "key 1"}) for _ in range(2)]
    assert [each.headers.get("Idempotent-Replayed") for each in answers] == [None, "true"]
    assert [(each.status_code, each.text) for each in answers] == [(201, "{}"), (201, "{}")]
    assert keys == ["key 1", "key 1"]


async def test_odd_headers_never_fail_inside(running: Running) -> None:
    for header in (b"X-Request-Id", b"User-Agent", b"Traceparent", b"Idempotency-Key"):
        for values in ODD_VALUES:
            is_refused = header == b"Idempotency-Key" and values != [b"a" * 8192]
            lines = b"".join(header + b": " + value + b"\r\n" for value in values)
            head = b"POST /v1/agents HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + AUTHORIZATION + lines
            answer = await talk(running, head + b"Content-Length: 0\r\n\r\n")
            expected = 400 if is_refused or values == [b"a\x01"] else 201
            assert answer.startswith(b"HTTP/1.1 %d " % expected), (header, values)
            assert re.search(rb"x-request-id: [!-~]{1,128}\r\n", answer)


@pytest.mark.parametrize(
    ("framing", "status"),
    [
        (b"Content-Length: " + b"0" * 5000 + b"2\r\n\r\n{}", 201),
        (b"Content-Length: " + b"9" * 30 + b"\r\n\r\n", 400),
        (b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400),
        (b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", 400),
        (b"Transfer-Encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", 415),
        (b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
    ],
)
async def test_how_a_body_is_framed(running: Running, framing: bytes, status: int) -> None:
    head = b"POST /v1/agents HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
    answer = await talk(running, head + AUTHORIZATION + framing)
    assert answer.startswith(b"HTTP/1.1 %d " % status)


async def test_a_deletion_has_no_body_and_an_update_has(client: httpx2.AsyncClient, running: Running) -> None:
    for content in (b"", b"\xff not json", b"x" * 5_000_000):
        response = await client.request("DELETE", "/agents/agent_1", content=content)
        assert (response.status_code, response.json().keys()) == (200, {"message"})
    put = await client.put("/agents/agent_1", json={"name": "other", "configuration": {"timeout": 600}})
    assert put.status_code == 200
    *_, call = running.upstream.calls
    request = agents_pb2.UpdateAgentRequest.FromString(call.message)
    assert (request.agent_id, request.name, request.configuration) == ("agent_1", "other", '{"timeout":600}')
    for body in ({"agent_id": "agent_2"}, {"type": "t"}):
        details = error(await client.put("/agents/agent_1", json=body))["details"]
        assert [each["field"] for each in details] == list(body)


async def test_a_list_in_a_body_is_named_by_place(client: httpx2.AsyncClient) -> None:
    tasks = [{"type": "t"}, {"type": "t", "labels": {"a": 1}}, {"typ": "t"}]
    details = error(await client.post("/tasks/bulk", json={"tasks": tasks}))["details"]
    assert [each["field"] for each in details] == ["tasks[1].labels.a", "tasks[2].typ"]


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
        (b"GET /v1/ws HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", b"400"),
    ],
)
async def test_what_never_reaches_the_application(running: Running, request_bytes: bytes, status: bytes) -> None:
    answer = await talk(running, request_bytes)
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["request_id"].startswith("req_")


async def talk(running: Running, *sent: bytes, to_the_end: bool = False) -> bytes:
    """What comes back until the connection is quiet: closed, or an answer whole."""
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    try:
        async with asyncio.timeout(DEADLINE):
            for part in sent:
                writer.write(part)
                await writer.drain()
            is_closed = b"Connection: close" in sent[0] or not sent[0].startswith((b"GET /v1/agents", b"POST"))
            if to_the_end or is_closed:
                return await reader.read()
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: ([0-9]+)", head)
            return head + await reader.readexactly(int(length[1]) if length else 0)
    finally:
        writer.close()

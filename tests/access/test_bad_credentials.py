"""What is no credential at all, in any form, is 401 on every way in: never 500, never taken for another."""

import asyncio
import json
from typing import Any

import grpc
import pytest
import websockets

from agent_orchestration.v1 import agents_pb2
from tests.access.world import DEADLINE, World

KEY = "<key>"
BAD: dict[str, list[str]] = {
    "empty": [""],
    "a scheme alone": ["Bearer"],
    "a scheme and spaces": ["Bearer    "],
    "another scheme": [f"Basic {KEY}"],
    "no scheme": [KEY],
    "a scheme that runs on": [f"Bearer{KEY}"],
    "two words": [f"Bearer {KEY} {KEY}"],
    "a comma": [f"Bearer {KEY},{KEY}"],
    "in quotes": [f'Bearer "{KEY}"'],
    "longer": [f"Bearer {KEY}x"],
    "in capitals": [f"Bearer {KEY}".upper()],
    "too long": ["Bearer " + "x" * 50_000],
    "long": ["Bearer " + "x" * 5_000],
    "twice": [f"Bearer {KEY}", f"Bearer {KEY}"],
    "good and bad": [f"Bearer {KEY}", "Bearer wrong"],
    "a percent sign": ["Bearer %00%ff"],
    "JSON": ['Bearer {"sub":"admin"}'],
    "SQL": ["Bearer ' OR 1=1 --"],
}
GOOD = [f"Bearer {KEY}", f"bearer {KEY}", f"BEARER {KEY}", f"Bearer  {KEY}", f"bEaReR   {KEY} "]
# What HTTP lets through and gRPC does not carry.
OF_HTTP: dict[str, list[bytes]] = {
    "Latin-1": ["Bearer é".encode("latin-1")],
    "UTF-8": ["Bearer ключ".encode()],
    "no text": [b"Bearer \xff\xfe\x80"],
    "a tab": [b"Bearer a\tb"],
}


def given(values: list[str], world: World) -> list[str]:
    return [value.replace(KEY, world.own.admin) for value in values]


@pytest.mark.parametrize("case", [*BAD, *OF_HTTP])
async def test_bad_ones_over_http(shared: World, case: str) -> None:
    values = OF_HTTP.get(case) or [value.encode() for value in given(BAD[case], shared)]
    status, body = await raw(shared, "GET /v1/agents", [b"Authorization: " + value for value in values])
    assert (status, json.loads(body)["error"]["code"]) == (401, "unauthorized")
    # The stream of events, and a path that streams nothing, know no other rule.
    status, body = await raw(shared, "GET /v1/events", [b"Authorization: " + value for value in values])
    assert status == 401


@pytest.mark.parametrize("name", ["access_token", "token", "api_key", "authorization"])
async def test_a_credential_in_the_query_is_none(shared: World, name: str) -> None:
    for path in ("/v1/agents", "/v1/events"):
        status, body = await raw(shared, f"GET {path}?{name}={shared.own.admin}", [])
        assert (status, shared.own.admin.encode() in body) == (401, False)


@pytest.mark.parametrize("case", BAD)
async def test_bad_ones_over_grpc(shared: World, case: str) -> None:
    metadata = tuple(("authorization", value) for value in given(BAD[case], shared))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await shared.api.agents.ListAgents(agents_pb2.ListAgentsRequest(), metadata=metadata)
    # So long a header is not taken by the transport at all.
    expected = {"UNAUTHENTICATED", "RESOURCE_EXHAUSTED"} if case == "too long" else {"UNAUTHENTICATED"}
    assert refused.value.code().name in expected


async def test_more_than_the_limit_of_headers_is_refused_readably(shared: World) -> None:
    status, _ = await raw(shared, "GET /v1/agents", [b"Authorization: Bearer " + b"x" * 70_000])
    assert status in (400, 401, 431)


@pytest.mark.parametrize("value", GOOD)
async def test_the_scheme_is_read_as_http_has_it(shared: World, value: str) -> None:
    (header,) = given([value], shared)
    status, _ = await raw(shared, "GET /v1/agents", [b"Authorization: " + header.encode()])
    assert status == 200
    await shared.api.agents.ListAgents(agents_pb2.ListAgentsRequest(), metadata=(("authorization", header),))


@pytest.mark.parametrize("case", [*BAD, *OF_HTTP])
async def test_bad_ones_in_a_sockets_handshake(shared: World, case: str) -> None:
    values = OF_HTTP.get(case) or [value.encode() for value in given(BAD[case], shared)]
    upgrade = [b"Upgrade: websocket", b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="]
    reader, writer = await asyncio.open_connection("127.0.0.1", shared.port)
    lines = [b"GET /v1/ws HTTP/1.1", b"Host: x", b"Connection: Upgrade", *upgrade]
    writer.write(b"\r\n".join([*lines, *(b"Authorization: " + value for value in values)]) + b"\r\n\r\n")
    try:
        async with asyncio.timeout(DEADLINE):
            head = await reader.readuntil(b"\r\n\r\n")
            if case == "too long" and b" 400 " in head:
                return
            frame = await reader.readexactly(4)
    finally:
        writer.close()
    # A close frame with 4401, and nothing in front of it.
    assert frame[:1] == b"\x88" and int.from_bytes(frame[2:]) == 4401


TOKENS = [
    "",
    " ",
    "é",
    "a b",
    "\u0000",
    "x" * 60_000,
    "Bearer x",
    "null",
    f"{KEY} ",
    f" {KEY}",
    f"{KEY}\n",
    "\U0001f511",
]


@pytest.mark.parametrize("token", [*TOKENS, None, 5, True, [KEY], {"key": KEY}])
async def test_bad_ones_in_a_sockets_first_message(shared: World, token: Any) -> None:
    if isinstance(token, str):
        token = token.replace(KEY, shared.own.admin)
    async with websockets.connect(shared.ws_url, proxy=None) as socket:
        await socket.send(json.dumps({"type": "auth", "token": token}))
        async with asyncio.timeout(DEADLINE):
            if isinstance(token, str):
                await socket.wait_closed()
                assert socket.close_code == 4401
            else:
                assert json.loads(await socket.recv())["error"]["code"] == "validation_error"


async def raw(world: World, line: str, headers: list[bytes]) -> tuple[int, bytes]:
    """Sends a request as it is, and returns status and body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
    try:
        head = [f"{line} HTTP/1.1".encode(), b"Host: x", b"Connection: close", *headers]
        writer.write(b"\r\n".join(head) + b"\r\n\r\n")
        async with asyncio.timeout(DEADLINE):
            answer = await reader.readuntil(b"\r\n\r\n")
            status = int(answer.split(b" ", 2)[1])
            return status, await reader.read() if status != 200 else b""
    finally:
        writer.close()

"""Rate limits where clients connect to the gateway, with time that the test moves."""

import json
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import httpx2
import pytest

from agent_orchestration.rate_limits import Limits, RateLimits, Windows
from ao_gateway import frame_rate
from tests.gateway.conftest import DEADLINE, Running, serving
from tests.gateway.scripted import ScriptedServer, refused
from tests.gateway.test_sockets import AUTH, Client, opened

SECOND = 1_000_000_000
# 1640995200, as the documentation prints it, is the end of this hour.
NOW = 1_640_993_395
HOUR_ENDS = 1_640_995_200


class Clock:
    def __init__(self) -> None:
        self.passed = 0

    def wall(self) -> int:
        return (NOW + self.passed) * SECOND

    def monotonic(self) -> int:
        return (5 + self.passed) * SECOND


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def limited(upstream: ScriptedServer, clock: Clock) -> AsyncGenerator[Running]:
    limits = RateLimits(Limits(1000, 100), Windows(clock.wall, clock.monotonic))
    async with serving(upstream, limits) as running:
        await running.connected()
        yield running


@pytest.fixture
async def client(limited: Running) -> AsyncGenerator[httpx2.AsyncClient]:
    headers = {"Authorization": "Bearer ao_live_one"}
    async with httpx2.AsyncClient(base_url=limited.url, headers=headers, timeout=DEADLINE, trust_env=False) as client:
        yield client


def told(response: httpx2.Response) -> dict[str, int]:
    """What an answer tells of the limits."""
    names = ("limit", "remaining", "reset")
    found = {name: response.headers.get(f"x-ratelimit-{name}") for name in names}
    return {name: int(value) for name, value in found.items() if value is not None}


def left(remaining: int, limit: int = 1000) -> dict[str, int]:
    return {"limit": limit, "remaining": remaining, "reset": HOUR_ENDS}


async def test_the_headers_are_as_documented(client: httpx2.AsyncClient) -> None:
    assert told(await client.get("/agents/a")) == left(999)
    assert told(await client.head("/agents/a")) == left(998)
    assert told(await client.post("/agents", json={"name": "a", "type": "t"})) == left(997)


async def test_the_101st_call_in_a_minute_is_refused_and_passes_after_its_retry_after(
    client: httpx2.AsyncClient, clock: Clock, limited: Running
) -> None:
    assert {(await client.get("/agents/a")).status_code for _ in range(100)} == {200}
    response = await client.get("/agents/a")
    assert response.status_code == 429
    error = response.json()["error"]
    assert error["code"] == "rate_limited"
    assert "100 requests per minute" in error["message"]
    assert error["request_id"] == response.headers["x-request-id"]
    # It is not counted, and did not reach the server.
    assert told(response) == left(900)
    assert len(limited.upstream.calls) == 100
    clock.passed += int(response.headers["retry-after"]) - 1
    assert (await client.get("/agents/a")).status_code == 429
    clock.passed += 1
    assert told(await client.get("/agents/a")) == left(899)


async def test_the_hour_is_that_of_the_clock(client: httpx2.AsyncClient, clock: Clock) -> None:
    for minute in range(10):
        clock.passed = 61 * minute
        for _ in range(100):
            assert (await client.get("/agents/a")).status_code == 200
    clock.passed += 61
    response = await client.get("/agents/a")
    assert response.status_code == 429
    assert "1000 requests per hour" in response.json()["error"]["message"]
    assert told(response) == left(0)
    assert int(response.headers["retry-after"]) == HOUR_ENDS - NOW - clock.passed
    clock.passed += int(response.headers["retry-after"])
    assert told(await client.get("/agents/a")) == left(999) | {"reset": HOUR_ENDS + 3600}


@pytest.mark.parametrize(
    ("status", "counted"), [(400, True), (403, False), (404, True), (409, True), (500, True), (503, True)]
)
async def test_every_answer_under_a_good_credential_tells_what_is_left(
    client: httpx2.AsyncClient, limited: Running, status: int, counted: bool
) -> None:
    codes = {400: 3, 404: 5, 409: 9, 500: 13, 503: 14}

    async def answer(call: Any) -> Any:
        return refused(codes[status], "")

    if status == 403:
        limited.upstream.scopes = ["tasks:read"]
    else:
        limited.upstream.answer = answer
    response = await client.get("/agents/a")
    assert response.status_code == status
    assert told(response) == left(999 if counted else 1000)


async def test_what_comes_before_a_good_credential_tells_nothing_and_counts_nothing(
    client: httpx2.AsyncClient, limited: Running
) -> None:
    root = limited.url.removesuffix("/v1")
    for method, url, headers, status in (
        ("GET", "/v1/nowhere", {}, 404),
        ("PATCH", "/v1/agents", {}, 405),
        ("GET", "/v1/agents", {"Authorization": "Bearer unknown"}, 401),
        ("GET", "/livez", {}, 200),
        ("GET", "/readyz", {}, 200),
        ("GET", "/v1/openapi.json", {}, 200),
    ):
        response = await client.request(method, root + url, headers=headers)
        assert (response.status_code, told(response)) == (status, {})
    assert told(await client.get("/agents/a")) == left(999)


async def test_a_refused_body_counts_and_the_rate_comes_before_it(client: httpx2.AsyncClient) -> None:
    bad = await client.post("/agents", content=b"{", headers={"Content-Type": "application/json"})
    assert (bad.status_code, told(bad)) == (400, left(999))
    for _ in range(99):
        await client.get("/agents/a")
    assert (await client.post("/agents", content=b"{")).status_code == 429


async def test_two_credentials_do_not_share(client: httpx2.AsyncClient) -> None:
    for _ in range(3):
        await client.get("/agents/a")
    other = await client.get("/agents/a", headers={"Authorization": "Bearer ao_live_again"})
    assert told(other) == left(999)


async def test_a_stream_is_one_call_and_tells_what_is_left(client: httpx2.AsyncClient, limited: Running) -> None:
    async with client.stream("GET", "/events") as response:
        assert told(response) == left(999)
        limited.upstream.publish()
        async for line in response.aiter_lines():
            if line.startswith("data:"):
                break
    assert told(await client.get("/agents/a")) == left(998)


@pytest.mark.parametrize(
    ("limits", "headers"), [(Limits(0, 0), {}), (Limits(0, 2), {}), (Limits(2, 0), {"limit": 2, "remaining": 0})]
)
async def test_a_window_without_a_limit_refuses_nothing_and_an_hour_without_one_has_no_headers(
    upstream: ScriptedServer, clock: Clock, limits: Limits, headers: Mapping[str, int]
) -> None:
    async with serving(upstream, RateLimits(limits, Windows(clock.wall, clock.monotonic))) as running:
        await running.connected()
        async with httpx2.AsyncClient(
            base_url=running.url, headers={"Authorization": "Bearer ao_live_one"}, trust_env=False
        ) as client:
            responses = [await client.get("/agents/a") for _ in range(3)]
    assert [each.status_code for each in responses] == [200, 200, 429 if any(limits) else 200]
    assert told(responses[2]).items() >= headers.items()
    assert bool(told(responses[2])) == bool(headers)
    assert ("retry-after" in responses[2].headers) == any(limits)


async def test_a_credential_on_a_socket_counts_as_a_call_and_one_too_many_has_no_effect(
    client: httpx2.AsyncClient, limited: Running, clock: Clock
) -> None:
    async with opened(limited) as socket:
        assert told(await client.get("/agents/a")) == left(998)
        for _ in range(98):
            await client.get("/agents/a")
        # What is open stays so; a fresh credential is not taken.
        await socket.say(AUTH, {"type": "ping"})
        refused_auth, pong = await socket.hear(2)
        assert refused_auth["error"]["code"] == "rate_limited"
        assert "100 requests per minute" in refused_auth["error"]["message"]
        assert pong == {"type": "pong"}
        async with opened(limited, authenticated=False) as late:
            await late.say(AUTH)
            assert (await late.hear())[0]["error"]["code"] == "rate_limited"
            clock.passed += 61
            await late.say(AUTH)
            assert await late.hear() == [{"type": "authenticated"}]
        header = {"Authorization": "Bearer ao_live_one"}
        async with opened(limited, authenticated=False, additional_headers=header) as greeted:
            assert await greeted.hear() == [{"type": "authenticated"}]


async def test_frames_over_the_limit_are_not_acted_on_and_a_flood_is_closed(
    limited: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(frame_rate, "MAX_REFUSED", 5)
    monkeypatch.setattr(frame_rate.FrameRate.__init__, "__defaults__", (lambda: now,))
    async with opened(limited) as socket:
        await _ping(socket, frame_rate.BURST - 1)
        assert {each["type"] for each in await socket.hear(frame_rate.BURST - 1)} == {"pong"}
        await _ping(socket, 1)
        (refusal,) = await socket.hear()
        assert refusal["error"]["code"] == "rate_limited"
        now += 1.0
        await _ping(socket, frame_rate.FRAMES_A_SECOND + 1)
        answers = await socket.hear(frame_rate.FRAMES_A_SECOND + 1)
        assert [each["type"] for each in answers] == ["pong"] * frame_rate.FRAMES_A_SECOND + ["error"]
        # A client that was quiet begins anew; one that goes on is closed.
        now += frame_rate.BURST / frame_rate.FRAMES_A_SECOND
        await _ping(socket, frame_rate.BURST + 5)
        assert [each["type"] for each in await socket.hear(frame_rate.BURST + 5)][-5:] == ["error"] * 5
        await _ping(socket, 1)
        assert await socket.close_code() == 4429


async def _ping(socket: Client, count: int) -> None:
    for _ in range(count):
        await socket.connection.send(json.dumps({"type": "ping"}))

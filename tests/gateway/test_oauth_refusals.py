"""The token endpoint when logins fail, and when the server is away or silent."""

import asyncio
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from ao_gateway import oauth
from tests.e2e.processes import wait_until
from tests.gateway import conftest
from tests.gateway.conftest import Running
from tests.gateway.oauth_plane import DEADLINE, serving
from tests.gateway.scripted import ScriptedServer

BODY = {"grant_type": "client_credentials", "client_id": "client_1", "client_secret": "ao_cs_1"}
MARK = "marked-7f3a"


def test_a_forged_address_is_throttled_all_the_same_and_others_are_not(tmp_path: Path) -> None:
    with serving(tmp_path) as plane, plane.stranger() as client, plane.stranger() as other:

        def forged(number: int) -> dict[str, str]:
            address = f"203.0.113.{number}"
            return {
                "X-Forwarded-For": address,
                "X-Real-IP": address,
                "Forwarded": f'for="[2001:db8::{number}]"',
                "X-Forwarded-Proto": "https",
                "X-Client-IP": "garbage, , ,",
            }

        answers = [
            client.post("/oauth/token", json=plane.body | {"client_secret": "wrong"}, headers=forged(number))
            for number in range(30)
        ]
        assert [each.status_code for each in answers] == [401] * 5 + [429] * 25
        right = client.post("/oauth/token", json=plane.body, headers=forged(99))
        revoking = client.post("/oauth/revoke", json=plane.body | {"token": "x"})
        for answer in (answers[5], answers[29], right, revoking):
            assert answer.status_code == 429
            assert answer.headers["retry-after"] == "1"
            assert answer.json()["error"] == "too_many_requests"
        # What is no login, or comes with a token, is not slowed down.
        assert client.post("/oauth/token", json={"grant_type": "password"}).status_code == 400
        assert client.get("/.well-known/oauth-authorization-server").status_code == 200
        token = plane.token(other)
        assert client.get("/v1/tasks", headers={"Authorization": f"Bearer {token}"}).status_code == 200
        wait_until(lambda: client.post("/oauth/token", json=plane.body).status_code == 200, DEADLINE, "still throttled")
        for _ in range(4):
            assert client.post("/oauth/token", json=plane.body | {"client_secret": "wrong"}).status_code == 401
        assert client.post("/oauth/token", json=plane.body).status_code == 200


def test_guesses_that_come_together_are_not_all_made(tmp_path: Path) -> None:
    with (
        serving(tmp_path) as plane,
        plane.stranger() as client,
        plane.stranger() as other,
        ThreadPoolExecutor(50) as pool,
    ):

        def guess(number: int) -> int:
            return client.post("/oauth/token", json=plane.body | {"client_secret": f"wrong {number}"}).status_code

        def know(number: int) -> int:
            return other.post("/oauth/token", json=plane.body).status_code

        statuses = list(pool.map(guess, range(100)))
        assert set(statuses) == {401, 429}
        # Fewer than five have failed, and as many as five are under way.
        assert statuses.count(401) <= 9
        assert set(pool.map(know, range(200))) == {200}


async def test_there_are_not_too_many_in_flight(
    running: Running, stranger: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oauth, "MAX_IN_FLIGHT", 3)
    monkeypatch.setattr(oauth, "TIMEOUT_SECONDS", 0.5)
    answers = await asyncio.gather(*(stranger.post("/oauth/token", json=BODY) for _ in range(10)))
    for answer in answers:
        unavailable(answer)
    assert sum("too many" in answer.text.lower() for answer in answers) == 7


def test_no_secret_is_in_any_log(tmp_path: Path) -> None:
    with serving(tmp_path, log_level="debug") as plane:
        with plane.stranger() as client, plane.stranger() as other:
            bodies: list[Any] = [plane.body, plane.body | {"scope": MARK}, plane.body | {"client_secret": MARK}]
            bodies += [{"client_secret": MARK}, {"client_secret": [MARK]}, [MARK], plane.body | {"token": MARK}]
            for body in bodies:
                for path in ("/oauth/token", "/oauth/revoke", f"/oauth/token?client_secret={MARK}"):
                    answer = client.post(path, json=body)
                    assert MARK not in answer.text
            client.post("/oauth/token", content=MARK, headers={"Content-Type": "application/json"})
            client.post("/oauth/token", headers={"Authorization": f"Basic {MARK}"})
            token = plane.token(other)
        for process in plane.plane.processes:
            written = process.errors + "\n".join(process.lines)
            assert written
            for secret in (MARK, plane.secret, token):
                assert secret not in written


@pytest.fixture
async def stranger(running: Running) -> AsyncGenerator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=running.url.removesuffix("/v1"), trust_env=False) as client:
        yield client


async def test_a_server_that_is_away_is_503_and_no_failure(running: Running, stranger: httpx2.AsyncClient) -> None:
    await running.upstream.stop()
    for _ in range(10):
        for path in ("/oauth/token", "/oauth/revoke"):
            unavailable(await stranger.post(path, json=BODY | {"token": "x"}))


async def test_a_server_that_does_not_answer_is_503(
    running: Running, stranger: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oauth, "TIMEOUT_SECONDS", 0.1)
    unavailable(await stranger.post("/oauth/token", json=BODY))


async def test_a_gateway_without_a_good_credential_of_its_own_blames_no_client(
    upstream: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conftest, "GATEWAY_KEY", "wrong_key")
    async with (
        conftest.serving(upstream) as running,
        httpx2.AsyncClient(base_url=running.url.removesuffix("/v1"), trust_env=False) as client,
    ):
        for _ in range(10):
            unavailable(await client.post("/oauth/token", json=BODY))


async def test_a_public_url_is_what_clients_are_told(upstream: ScriptedServer) -> None:
    async with (
        conftest.serving(upstream, public_url="https://ao.example.com") as running,
        httpx2.AsyncClient(base_url=running.url.removesuffix("/v1"), trust_env=False) as client,
    ):
        found = (await client.get("/.well-known/oauth-authorization-server")).json()
        assert found["token_endpoint"] == "https://ao.example.com/oauth/token"


def unavailable(answer: httpx2.Response) -> None:
    assert (answer.status_code, answer.json()["error"]) == (503, "temporarily_unavailable")
    assert (answer.headers["retry-after"], answer.headers["cache-control"]) == ("1", "no-store")

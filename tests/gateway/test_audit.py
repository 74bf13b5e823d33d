"""The audit log over HTTP: what the gateway refuses by itself is in it too, and all of it comes as lines of JSON."""

import json
from collections.abc import Generator

import httpx2
import pytest

from tests.e2e.processes import ControlPlane
from tests.gateway.conftest import DEADLINE, Running

MISSING = "agent_" + "0" * 26


@pytest.fixture
def client(tmp_path_factory: pytest.TempPathFactory) -> Generator[httpx2.Client]:
    with ControlPlane(tmp_path_factory.mktemp("plane")) as plane:
        plane.start_server()
        plane.start_gateway()
        with plane.client() as client:
            yield client


def exported(client: httpx2.Client, **query: str) -> list[dict[str, str]]:
    answer = client.get("/audit/export", params=query)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/x-ndjson"), answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


def test_whoever_refuses_a_call_it_is_there_with_its_object_and_address(client: httpx2.Client) -> None:
    key = client.post("/keys", json={"name": "Reader", "scopes": ["agents:read"]}).json()["data"]
    reader = {"Authorization": f"Bearer {key['key']}", "X-Request-Id": "mine"}
    agent = client.post("/agents", json={"name": "One", "type": "worker"}).json()["data"]["id"]
    gzip = {"Content-Encoding": "gzip"}
    refused = [
        (client.post(f"/agents/{agent}/pause", headers=reader), "PauseAgent", agent, "forbidden"),
        (client.put(f"/agents/{agent}", json={"nmae": "Two"}), "UpdateAgent", agent, "validation_error"),
        (client.put(f"/agents/{agent}", content=b"x", headers=gzip), "UpdateAgent", agent, "unsupported_media_type"),
        (client.post("/agents", content=b"x" * 4_200_000), "CreateAgent", "", "payload_too_large"),
        (client.post("/agents/ao_live_in-the-wrong-place/pause"), "PauseAgent", "", "not_found"),
        (client.delete(f"/agents/{MISSING}"), "DeleteAgent", MISSING, "not_found"),
    ]
    assert [answer.json()["error"]["code"] for answer, *_ in refused] == [code for *_, code in refused]
    assert client.get("/tasks", headers=reader).status_code == 403, "a read, which leaves no record"
    records = exported(client)
    assert [(each["action"], each["object_id"], each["outcome"]) for each in records] == [
        ("CreateKey", key["id"], "success"),
        ("CreateAgent", agent, "success"),
        *((action, object_id, code) for _, action, object_id, code in refused),
    ]
    assert {each["address"] for each in records} == {"127.0.0.1"}
    assert (records[2]["actor_id"], records[2]["actor_name"], records[2]["request_id"]) == (key["id"], "Reader", "mine")
    listed = client.get("/audit", params={"outcome": "forbidden"}).json()
    assert listed["data"] == [records[2]] and listed["pagination"]["total"] == 1
    assert exported(client, action="DeleteAgent") == records[-1:]
    assert exported(client, action="Unknown") == []


def test_an_export_is_for_admins_takes_no_pages_and_has_a_head(client: httpx2.Client) -> None:
    key = client.post("/keys", json={"name": "Reader", "scopes": ["monitoring:read"]}).json()["data"]["key"]
    assert client.get("/audit/export", headers={"Authorization": f"Bearer {key}"}).status_code == 403
    assert client.get("/audit/export", params={"page": "1"}).status_code == 400
    assert client.head("/audit/export").headers["content-type"] == "application/x-ndjson"
    # As any answer: only what is its own differs.
    listed, exported_ = (client.get(path).headers for path in ("/audit", "/audit/export"))
    assert set(listed) - set(exported_) == {"content-length"}
    assert exported_["content-security-policy"] == listed["content-security-policy"]


async def test_an_export_that_cannot_go_on_is_seen_to_be_cut_off(running: Running) -> None:
    headers = {"Authorization": "Bearer ao_live_one"}
    async with httpx2.AsyncClient(base_url=running.url, headers=headers, timeout=DEADLINE, trust_env=False) as client:
        with pytest.raises(httpx2.RemoteProtocolError):
            async with client.stream("GET", "/audit/export") as answer:
                lines = answer.aiter_lines()
                assert json.loads(await anext(lines))["id"] == "audit_1"
                await running.upstream.stop()
                async for _ in lines:
                    pass

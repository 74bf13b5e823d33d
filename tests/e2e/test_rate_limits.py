"""Rate limits through the real gateway and server, with the limits that hold unless set."""

import json
import time

import grpc
import httpx2
import pytest
from websockets.sync.client import connect

from agent_orchestration.v1 import agents_pb2, agents_pb2_grpc
from tests.e2e.processes import ControlPlane, wait_until

HEADERS = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")


@pytest.fixture
def limited(control_plane: ControlPlane) -> ControlPlane:
    control_plane.has_limits = True
    control_plane.start_dev()
    return control_plane


def test_the_limits_are_as_documented_and_a_keys_own_come_first(limited: ControlPlane) -> None:
    with limited.client() as admin:
        first = admin.get("/agents")
        limit, remaining, reset = (int(first.headers[name]) for name in HEADERS)
        assert (limit, remaining) == (1000, 999)
        assert reset % 3600 == 0
        assert 0 < reset - time.time() <= 3600
        sent = {"name": "two", "scopes": ["agents:read", "monitoring:read"], "rate_limits": {"per_minute": 2}}
        made = admin.post("/keys", json=sent).json()["data"]
        with httpx2.Client(
            base_url=limited.rest_url, headers={"Authorization": f"Bearer {made['key']}"}, trust_env=False
        ) as client:
            # Another key's calls do not count.
            assert client.get("/agents").headers["X-RateLimit-Remaining"] == "999"
            assert client.post("/agents", json={"name": "n", "type": "t"}).status_code == 403
            with client.stream("GET", "/events") as stream:
                assert (stream.status_code, stream.headers["X-RateLimit-Remaining"]) == (200, "998")
                assert next(stream.iter_lines())
            # The server did not count the stream again, which the gateway opened there under this key.
            with grpc.insecure_channel(limited.grpc_address) as channel:
                _, call = agents_pb2_grpc.AgentServiceStub(channel).ListAgents.with_call(
                    agents_pb2.ListAgentsRequest(), metadata=(("authorization", f"Bearer {made['key']}"),)
                )
                assert dict(call.trailing_metadata())["x-ratelimit-remaining"] == "999"
            refused = client.get("/agents")
            assert refused.status_code == 429
            assert "2 requests per minute" in refused.json()["error"]["message"]
            assert 50 <= int(refused.headers["Retry-After"]) <= 60
            with connect(limited.rest_url.replace("http", "ws", 1) + "/ws", proxy=None) as socket:
                socket.send(json.dumps({"type": "auth", "token": made["key"]}))
                assert json.loads(socket.recv(10))["error"]["code"] == "rate_limited"
            changed = admin.put(f"/keys/{made['id']}", json={"rate_limits": {"per_hour": 4, "per_minute": 0}})
            assert changed.status_code == 200
            wait_until(lambda: client.get("/agents").status_code == 200, 1.0, "the change is not in force")
            last = [client.get("/agents") for _ in range(2)]
            assert [each.status_code for each in last] == [200, 429]
            assert [last[1].headers[name] for name in HEADERS[:2]] == ["4", "0"]
            assert "4 requests per hour" in last[1].json()["error"]["message"]

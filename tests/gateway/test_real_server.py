"""REST and WebSocket in front of the real server, each a process of its own."""

import json
import signal
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.e2e.processes import ControlPlane, Process, wait_until

DEADLINE = 10.0
PAYLOAD = '{"z":1.0,  "a":-0.0,"big":12345678901234567890123,"a":1E2,"s":"\\u0000\\ud83d\\ude00é"}'


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Generator[ControlPlane]:
    with ControlPlane(tmp_path_factory.mktemp("plane")) as plane:
        plane.start_server()
        plane.start_gateway()
        yield plane


@pytest.fixture
def client(plane: ControlPlane) -> Generator[httpx2.Client]:
    with plane.client() as client:
        yield client


@pytest.fixture
def agent_id(client: httpx2.Client) -> str:
    return client.post("/agents", json={"name": "one", "type": "t"}).json()["data"]["id"]


def test_an_agent_as_documented(client: httpx2.Client) -> None:
    sent = {"name": "New", "type": "new_type", "configuration": {"timeout": 300}, "environment": "production"}
    answer = client.post("/agents", json=sent)
    assert answer.status_code == 201
    created = answer.json()["data"]
    assert created.items() >= (sent | {"status": "initializing"}).items()
    assert client.get(f"/agents/{created['id']}").json() == {"data": created}
    assert created.pop("task_types") == []
    page = client.get("/agents", params={"type": "new_type", "status": "initializing", "page": 1, "limit": 1}).json()
    assert page == {"data": [created], "pagination": {"page": 1, "limit": 1, "total": 1, "pages": 1}}


def test_a_task_carries_its_payload_verbatim(client: httpx2.Client, agent_id: str) -> None:
    body = f'{{"agent_id": "{agent_id}", "type": "t", "priority": "high", "payload": {PAYLOAD}}}'
    answer = client.post("/tasks", content=body.encode(), headers={"Content-Type": "application/json"})
    assert answer.status_code == 201
    task = answer.json()["data"]
    shown = client.get(f"/tasks/{task['id']}").text
    assert f'"payload":{PAYLOAD}' in shown
    listed = client.get("/tasks", params={"agent_id": agent_id, "priority": "high"}).json()["data"]
    (in_list,) = listed
    assert in_list["id"] == task["id"]
    assert not in_list.keys() & {"payload", "logs"}
    assert task["logs"] == []


def test_exclusive_times_round_trip(client: httpx2.Client, agent_id: str) -> None:
    body = {"agent_id": agent_id, "type": "t"}
    times = [client.post("/tasks", json=body).json()["data"]["created_at"] for _ in range(3)]
    between = {"agent_id": agent_id, "created_after": times[0], "created_before": times[2]}
    found = [each["created_at"] for each in client.get("/tasks", params=between).json()["data"]]
    assert found == [time for time in times if times[0] < time < times[2]]


def test_health_as_documented(client: httpx2.Client) -> None:
    health = client.get("/health").json()
    assert list(health) == ["status", "timestamp", "services", "metrics"]
    assert health["services"]["redis"] == {"status": "not_configured"}
    assert health["services"]["message_queue"].keys() == {"status", "pending_messages"}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "agent_id"),
        ({"agent_id": "agent_none", "type": "t"}, "agent_id"),
        ({"agent_id": "x", "type": ""}, "type"),
        ({"agent_id": "x", "type": "t" * 101}, "type"),
        ({"agent_id": "x", "type": "t\0"}, "type"),
        ({"agent_id": "x", "type": "t", "priority": "urgent"}, "priority"),
        ({"agent_id": "x", "type": "t", "schedule": {}}, "schedule.type"),
        ({"agent_id": "x", "type": "t", "schedule": {"type": "cron"}}, "schedule.type"),
        ({"agent_id": "x", "type": "t", "payload": {"d": "x" * 1024 * 1024}}, "payload"),
        ({"agentId": "x", "type": "t"}, "agentId"),
    ],
)
def test_whoever_finds_a_bad_field_names_it(client: httpx2.Client, body: dict[str, Any], field: str) -> None:
    answer = client.post("/tasks", json=body)
    assert answer.status_code == 400
    assert field in [each["field"] for each in answer.json()["error"]["details"]]


@pytest.mark.parametrize("path", ["/tasks?limit=0", "/tasks?limit=101", "/tasks?page=-1", "/agents?limit=101"])
def test_limits_of_the_query(client: httpx2.Client, path: str) -> None:
    assert client.get(path).json()["error"]["details"][0]["field"] in path


def test_an_id_that_does_not_exist(client: httpx2.Client) -> None:
    for path in ("/tasks/task_none", "/agents/agent_none", "/agents/%2e%2e", "/agents/" + "a" * 50_000):
        assert client.get(path).json()["error"]["code"] == "not_found"
    assert client.get("/tasks?agent_id=agent_none").json()["data"] == []


def test_the_largest_payload_is_shown_again(client: httpx2.Client, agent_id: str) -> None:
    payload = {"d": "x" * (1024 * 1024 - len('{"d":""}'))}
    body = json.dumps({"agent_id": agent_id, "type": "t", "payload": payload}, separators=(",", ":"))
    answer = client.post("/tasks", content=body.encode(), headers={"Content-Type": "application/json"})
    assert answer.status_code == 201
    assert client.get(f"/tasks/{answer.json()['data']['id']}").json()["data"]["payload"] == payload


def test_a_repeated_create_gets_the_first_answer(client: httpx2.Client, agent_id: str) -> None:
    body = {"agent_id": agent_id, "type": "t"}
    key = {"Idempotency-Key": "key 1"}
    first, again = (client.post("/tasks", json=body, headers=key) for _ in range(2))
    in_body = client.post("/tasks", json=body | {"idempotency_key": "key 1"})
    assert (first.status_code, first.headers.get("Idempotent-Replayed")) == (201, None)
    for replayed in (again, in_body):
        assert (replayed.status_code, replayed.headers["Idempotent-Replayed"]) == (201, "true")
        assert replayed.content == first.content
    other = client.post("/tasks", json=body | {"type": "u"}, headers=key)
    assert (other.status_code, other.json()["error"]["code"]) == (409, "idempotency_conflict")
    long = client.post("/tasks", json=body, headers={"Idempotency-Key": "k" * 256})
    assert (long.status_code, long.json()["error"]["details"][0]["field"]) == (400, "idempotency_key")


def test_a_wait_ends_when_the_task_does(client: httpx2.Client, agent_id: str) -> None:
    task_id = create(client, agent_id)
    assert client.get(f"/tasks/{task_id}?wait=0.05").json()["data"]["status"] == "pending"
    assert client.get(f"/tasks/{task_id}?wait=61").json()["error"]["details"][0]["field"] == "wait"
    with ThreadPoolExecutor(1) as pool:
        waited = pool.submit(client.get, f"/tasks/{task_id}?wait=60")
        assert client.post(f"/tasks/{task_id}/cancel").json()["data"]["status"] == "cancelled"
        assert waited.result(DEADLINE).json()["data"]["status"] == "cancelled"


def test_an_agent_is_updated_and_deleted_as_documented(client: httpx2.Client, agent_id: str) -> None:
    changed = client.put(f"/agents/{agent_id}", json={"name": "other", "configuration": {"timeout": 600}})
    assert changed.json()["data"]["configuration"]["timeout"] == 600
    deleted = client.delete(f"/agents/{agent_id}").json()
    assert deleted.keys() == {"message", "deleted_at"}
    assert client.get(f"/agents/{agent_id}").status_code == 404


def test_labels_find_tasks(client: httpx2.Client, agent_id: str) -> None:
    tasks = [
        {"agent_id": agent_id, "type": "t", "labels": {"team": "a=b", "night": ""}},
        {"agent_id": agent_id, "type": "t", "labels": {"team": "c"}},
    ]
    answer = client.post("/tasks/bulk", json={"tasks": tasks})
    assert answer.status_code == 201
    both = [each["id"] for each in answer.json()["data"]]
    listed = client.get("/tasks", params={"label": ["team", "team=a=b"], "agent_id": agent_id}).json()["data"]
    assert [each["id"] for each in listed] == both[:1]


def test_metrics_as_documented(client: httpx2.Client) -> None:
    data = client.get("/metrics?period=1h&metric=error_rate").json()["data"]
    assert data == {"period": "1h", "metrics": {"error_rate": []}}
    assert client.get("/metrics").json()["data"]["metrics"].keys() == {
        "task_completion_rate",
        "response_time",
        "error_rate",
    }
    assert client.get("/metrics?period=2h").json()["error"]["details"][0]["field"] == "period"


def test_a_stream_of_events_is_that_of_a_socket_and_resumes(
    plane: ControlPlane, client: httpx2.Client, agent_id: str
) -> None:
    with opened(plane) as socket, events(client, f"channel=agent_events&agent_id={agent_id}") as stream:
        say(socket, {"type": "subscribe", "channel": "agent_events", "agent_id": agent_id})
        since = hear(socket)["cursor"]
        created = [create(client, agent_id) for _ in range(5)]
        streamed = [next(stream) for _ in created]
        assert [data["payload"]["id"] for _, data in streamed] == created
        assert [data for _, data in streamed] == [hear(socket) for _ in created]
    with events(client, f"channel=task_events&task_id={created[1]}", {"Last-Event-ID": since}) as stream:
        cursor, data = next(stream)
        assert (cursor, data["payload"]["id"], data["channel"]) == (streamed[1][0], created[1], "task_events")
    for query, code in (("after=nonsense", "cursor_invalid"), (f"after={since[:-12]}{'f' * 12}", "cursor_ahead")):
        refused = client.get(f"/events?{query}")
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, code)
    for query in ("channel=task_events&agent_id=x", "agent_id=x"):
        assert client.get(f"/events?{query}").json()["error"]["details"][0]["field"] == "agent_id"


@pytest.fixture
def alone(tmp_path_factory: pytest.TempPathFactory) -> Generator[ControlPlane]:
    """A control plane to break."""
    with ControlPlane(tmp_path_factory.mktemp("alone")) as plane:
        yield plane


def test_a_socket_outlives_the_server(alone: ControlPlane) -> None:
    server = alone.start_server()
    gateway = alone.start_gateway()
    with alone.client() as client, opened(alone) as socket:
        agent_id = client.post("/agents", json={"name": "n", "type": "t"}).json()["data"]["id"]
        say(socket, {"type": "subscribe", "channel": "agent_events", "agent_id": agent_id})
        since = hear(socket)["cursor"]
        created: list[str] = []
        for _ in range(3):
            created += [create(client, agent_id) for _ in range(5)]
            server.kill()
            server = alone.start_server()
            wait_until(lambda: alone.is_serving, DEADLINE, "the gateway is not back")
        created += [create(client, agent_id) for _ in range(5)]
        heard = [hear(socket) for _ in created]
        assert [each["payload"]["id"] for each in heard] == created
        with opened(alone) as late:
            say(late, {"type": "subscribe", "channel": "task_events", "after": since})
            assert hear(late)["type"] == "subscribed"
            assert [hear(late)["payload"]["id"] for _ in created] == created
            stop(gateway, late)


def create(client: httpx2.Client, agent_id: str) -> str:
    answer = client.post("/tasks", json={"agent_id": agent_id, "type": "t"})
    assert answer.status_code == 201
    return answer.json()["data"]["id"]


@contextmanager
def opened(plane: ControlPlane) -> Generator[ClientConnection]:
    headers = {"Authorization": f"Bearer {plane.api_key}"}
    with connect(f"ws://127.0.0.1:{plane.port}/v1/ws", additional_headers=headers, proxy=None) as socket:
        assert hear(socket) == {"type": "authenticated"}
        yield socket


@contextmanager
def events(
    client: httpx2.Client, query: str, headers: dict[str, str] | None = None
) -> Generator[Iterator[tuple[str, dict[str, Any]]]]:
    """The cursors and the data of a stream's events."""

    def read() -> Iterator[tuple[str, dict[str, Any]]]:
        cursor = ""
        for line in response.iter_lines():
            cursor = line.removeprefix("id: ") if line.startswith("id: ") else cursor
            if line.startswith("data: "):
                yield cursor, json.loads(line.removeprefix("data: "))

    with client.stream("GET", f"/events?{query}", headers=headers) as response:
        assert response.status_code == 200
        lines = read()
        yield lines


def say(socket: ClientConnection, message: dict[str, Any]) -> None:
    socket.send(json.dumps(message))


def hear(socket: ClientConnection) -> dict[str, Any]:
    return json.loads(socket.recv(DEADLINE))


def stop(gateway: Process, socket: ClientConnection) -> None:
    """The gateway goes in good order, and says so to its sockets."""
    gateway.signal(signal.SIGTERM)
    with pytest.raises(ConnectionClosed) as closed:
        hear(socket)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1012
    assert gateway.end(DEADLINE) == 0

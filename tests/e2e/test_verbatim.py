"""Free JSON goes from REST to the agent and back as it is, up to every limit and not beyond, on both engines."""

import json
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.e2e.processes import ControlPlane, wait_until

MIB: Final = 1024 * 1024
TOO_SLOW: Final = 4008
MAX_BODY: Final = 4 * MIB
DEADLINE: Final = 20.0
# Tasks with a result of 1 MiB on one page: more than any message between the parts may hold.
LARGE: Final = 20
ODD: Final = (
    '{ "z":9007199254740993,  "y" : 18446744073709551616,"x":-1180591620717411303424, "long":' + "7" * 4300 + ","
    '"float":1.0,"zero":-0.0,"exponent":1E5,"tenth":0.1,"least":5e-324,"a":"first","a":"last",'
    '"nul":"\\u0000","text":"\\\\u0000","emoji":"\\ud83d\\ude00 \U0001f600","é":"\u2028\x7f","":{},'
    '"deep":' + "[" * 99 + "]" * 99 + " }"
)
AGENTS: Final = """
from pathlib import Path

from agent_runner import Agent

agent = Agent(name="Echo", type="echo")


@agent.task("echo")
async def echo(task):
    Path(__file__).with_name("received").write_text(ascii(task.payload))
    return task.payload


@agent.task("large")
async def large(task):
    return {"d": "x" * (task.payload["bytes"] - len('{"d":""}'))}


@agent.task("log")
async def log(task):
    for size in task.payload["sizes"]:
        task.log.info("é" * (size // 2) + "x" * (size % 2))
"""


@dataclass
class Stack:
    """A control plane with a connected agent."""

    plane: ControlPlane
    client: httpx2.Client
    agent_id: str

    def post(self, body: str | bytes) -> httpx2.Response:
        """Submits a task, the body as it is."""
        return self.client.post("/tasks", content=body, headers={"Content-Type": "application/json"})

    def create(self, type_: str, payload: str = "{}") -> str:
        answer = self.post(f'{{"agent_id":"{self.agent_id}","type":"{type_}","payload":{payload}}}')
        assert answer.status_code == 201, answer.text
        return answer.json()["data"]["id"]

    def ended(self, task_id: str) -> httpx2.Response:
        """The task once it is final."""
        shown = f"/tasks/{task_id}"
        final = ("completed", "failed", "cancelled")
        wait_until(lambda: self.client.get(shown).json()["data"]["status"] in final, DEADLINE, "not final")
        return self.client.get(shown)

    @property
    def total(self) -> int:
        return self.client.get("/tasks", params={"limit": 1}).json()["pagination"]["total"]

    @contextmanager
    def events(self, after: str | None = None) -> Generator[ClientConnection]:
        """A socket that hears of the agent's tasks, from now on or behind a cursor."""
        headers = {"Authorization": f"Bearer {self.plane.api_key}"}
        url = f"ws://127.0.0.1:{self.plane.port}/v1/ws"
        with connect(url, additional_headers=headers, proxy=None, max_size=None) as socket:
            subscribe = {"type": "subscribe", "channel": "agent_events"} | ({"after": after} if after else {})
            socket.send(json.dumps(subscribe))
            assert [json.loads(socket.recv(DEADLINE))["type"] for _ in range(2)] == ["authenticated", "subscribed"]
            yield socket


@pytest.fixture
def stack(database_url: str, tmp_path: Path) -> Generator[Stack]:
    agents = tmp_path / "agents.py"
    agents.write_text(AGENTS)
    with ControlPlane(tmp_path, database_url=database_url) as plane:
        plane.start_dev()
        plane.start_runner(agents)
        with plane.client() as client:
            wait_until(lambda: bool(client.get("/agents?status=active").json()["data"]), 30, "the agent is not active")
            yield Stack(plane, client, client.get("/agents").json()["data"][0]["id"])


def test_free_json_is_the_same_everywhere_and_limits_are_exact(stack: Stack, tmp_path: Path) -> None:
    # One test, so that each engine is started once.
    _goes_unchanged(stack, tmp_path / "received")
    _payloads_at_their_limit(stack)
    _bodies_at_their_limit(stack)
    _results_at_their_limit(stack)
    _lines_at_their_limit(stack)
    _many_long_lines_pass(stack)


def _goes_unchanged(stack: Stack, received: Path) -> None:
    with stack.events() as socket:
        answer = stack.post(f'{{"agent_id":"{stack.agent_id}","type":"echo","payload":{ODD}}}')
        assert answer.status_code == 201
        assert f'"payload":{ODD}' in answer.text
        task = stack.ended(answer.json()["data"]["id"])
        assert f'"payload":{ODD}' in task.text
        assert received.read_text() == ascii(json.loads(ODD))
        # What the agent's own JSON makes of it, from there on as it is.
        result = '"result":' + json.dumps(json.loads(ODD), ensure_ascii=False, separators=(",", ":"))
        assert result in task.text
        assert result in stack.client.get("/tasks").text
        assert result in _event(socket, "task_completed")


def _payloads_at_their_limit(stack: Stack) -> None:
    def padded(size: int) -> str:
        # Two bytes a character: what counts is the text's bytes.
        return '{"d":"' + "é" * ((size - len('{"d":""}')) // 2) + '"}'

    total = stack.total
    task_id = stack.create("nobody's", padded(MIB))
    assert padded(MIB) in stack.client.get(f"/tasks/{task_id}").text
    over = padded(MIB - 6)[:-1] + ',"e":10}'
    assert len(over.encode()) == MIB + 1
    for payload in (over, padded(MIB + 2)):
        refused = stack.post(f'{{"agent_id":"{stack.agent_id}","type":"t","payload":{payload}}}')
        assert refused.status_code == 400
        assert [each["field"] for each in refused.json()["error"]["details"]] == ["payload"]
    assert stack.total == total + 1


def _bodies_at_their_limit(stack: Stack) -> None:
    total = stack.total
    body = f'{{"agent_id":"{stack.agent_id}","type":"nobody\'s","payload":{{}}}}'
    assert stack.post(body.rjust(MAX_BODY)).status_code == 201
    assert stack.post(body.replace("{", "{" + " " * (MAX_BODY - len(body)), 1)).status_code == 201
    refused = stack.post(body.rjust(MAX_BODY + 1))
    assert (refused.status_code, refused.json()["error"]["code"]) == (413, "payload_too_large")
    # Four payloads of nearly the limit each, so that most of the largest body goes through every inner hop.
    many = ",".join(body.replace("{}", f'{{"d":"{"x" * (MIB - 200)}"}}') for _ in range(4))
    answer = stack.client.post(
        "/tasks/bulk", content=f'{{"tasks":[{many}]}}', headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 201, answer.text[:500]
    assert stack.total == total + 6


def _results_at_their_limit(stack: Stack) -> None:
    over = stack.create("large", f'{{"bytes":{MIB + 1}}}')
    assert stack.ended(over).json()["data"]["error"]["code"] == "result_too_large"
    with stack.events() as socket:
        sizes = [MIB - 1, *[MIB] * (LARGE - 1)]
        ids = [stack.create("large", f'{{"bytes":{size}}}') for size in sizes]
        for task_id, size in zip(ids, sizes, strict=True):
            result = stack.ended(task_id).json()["data"]["result"]
            assert len(json.dumps(result, separators=(",", ":"))) == size
        events = [json.loads(_event(socket, "task_completed"))["payload"] for _ in ids]
        assert {event["id"] for event in events} == set(ids)
    page: list[dict[str, Any]] = stack.client.get("/tasks", params={"limit": LARGE}).json()["data"]
    assert [task["id"] for task in page] == ids[::-1]
    for task in (*page, *events):
        assert task["result_omitted"] is True
        assert "result" not in task


def _lines_at_their_limit(stack: Stack) -> None:
    task = stack.ended(stack.create("log", '{"sizes":[8191,8192,8193,100000]}')).json()["data"]
    lines: list[str] = [line["message"] for line in task["logs"]]
    assert [len(line.encode()) for line in lines[:2]] == [8191, 8192]
    for line in lines[2:]:
        assert 8000 < len(line.encode()) <= 8192
        assert "[cut" in line[-60:]


def _many_long_lines_pass(stack: Stack) -> None:
    """Ten megabytes at once: a client that is too slow for them is told where it stands, and goes on from there."""
    heard, task_id, after = 0, "", None
    while heard < 1_200:
        with stack.events(after) as socket:
            task_id = task_id or stack.create("log", json.dumps({"sizes": [8192] * 1_200}))
            try:
                while heard < 1_200:
                    heard += len(json.loads(_event(socket, "task_log"))["payload"]["lines"])
            except ConnectionClosed as closed:
                assert closed.rcvd is not None and closed.rcvd.code == TOO_SLOW
                after = closed.rcvd.reason
    assert heard == 1_200
    assert stack.ended(task_id).json()["data"]["status"] == "completed"


def _event(socket: ClientConnection, type_: str) -> str:
    while True:
        text = socket.recv(DEADLINE)
        assert isinstance(text, str)
        if json.loads(text)["type"] == type_:
            return text

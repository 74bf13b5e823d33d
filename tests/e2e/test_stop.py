"""Promise 7: a stop tells everyone, loses nothing, and takes less than 10 seconds."""

import json
import socket
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.e2e.processes import ControlPlane, wait_until

SOCKETS = 20
RESTART = 1012
AGENTS = """
import asyncio
from pathlib import Path

from agent_runner import Agent

agent = Agent(name="Slow", type="slow")
began = Path(__file__).with_name("began")


@agent.task("wait")
async def wait(task):
    with began.open("a") as file:
        print(task.id, task.attempt, file=file)
    while not Path(__file__).with_name("go").exists():
        await asyncio.sleep(0.05)
    return {"attempt": task.attempt}
"""


def test_a_stop_with_everyone_connected(control_plane: ControlPlane, tmp_path: Path) -> None:
    dev = control_plane.start_dev()
    agents = tmp_path / "agents.py"
    agents.write_text(AGENTS)
    runner = control_plane.start_runner(agents)
    with control_plane.client() as client, ExitStack() as stack:
        wait_until(lambda: bool(client.get("/agents?status=active").json()["data"]), 30, "the agent is not active")
        agent_id = client.get("/agents").json()["data"][0]["id"]
        task = client.post("/tasks", json={"agent_id": agent_id, "type": "wait"}).json()["data"]["id"]
        wait_until(lambda: client.get(f"/tasks/{task}").json()["data"]["status"] == "running", 10, "not running")
        sockets = [stack.enter_context(_subscribed(control_plane)) for _ in range(SOCKETS)]
        for _ in range(5):
            # A request that was never finished.
            half = stack.enter_context(socket.create_connection(("127.0.0.1", control_plane.port)))
            half.sendall(b"POST /v1/tasks HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        began = time.monotonic()
        assert dev.stop() == 0
        assert time.monotonic() - began < 10
        assert "Traceback" not in dev.errors
        assert {_close_code(each) for each in sockets} == {RESTART}
    control_plane.start_dev()
    (tmp_path / "go").touch()
    with control_plane.client() as client:
        wait_until(lambda: client.get(f"/tasks/{task}").json()["data"]["status"] == "completed", 30, "not completed")
        assert client.get(f"/tasks/{task}").json()["data"]["result"] == {"attempt": 1}
    assert (tmp_path / "began").read_text() == f"{task} 1\n"
    assert runner.stop() == 0


@contextmanager
def _subscribed(plane: ControlPlane) -> Generator[ClientConnection, None, None]:
    with connect(f"ws://127.0.0.1:{plane.port}/v1/ws", proxy=None) as client:
        client.send(json.dumps({"type": "auth", "token": plane.api_key}))
        client.send(json.dumps({"type": "subscribe", "channel": "agent_events"}))
        assert [json.loads(client.recv(10))["type"] for _ in range(2)] == ["authenticated", "subscribed"]
        yield client


def _close_code(client: ClientConnection) -> int:
    try:
        while True:
            client.recv(5)
    except ConnectionClosed as closed:
        assert closed.rcvd is not None
        return closed.rcvd.code

"""What was answered outlives a killed server: keys of repeated creates, times that tasks wait for, pauses, metrics."""

import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2

from tests.e2e.processes import ControlPlane, wait_until

AGENTS = """
from agent_runner import Agent, Task

agent = Agent(name="Keeper", type="keeper", max_concurrent_tasks=4)


@agent.task("work")
async def work(task: Task) -> dict[str, object]:
    return {"attempt": task.attempt}
"""


def test_keys_delays_pauses_and_metrics_hold_over_a_killed_server(tmp_path: Path) -> None:
    with ControlPlane(tmp_path, environment={"AGENT_ORCHESTRATION_LEASE_SECONDS": "3"}) as plane:
        server = plane.start_server()
        plane.start_gateway()
        file = tmp_path / "agents.py"
        file.write_text(AGENTS)
        plane.start_runner(file)
        with plane.client() as client:
            wait_until(lambda: client.get("/agents?status=active").json()["data"] != [], 30, "no agent")
            agent_id = client.get("/agents").json()["data"][0]["id"]
            key = {"Idempotency-Key": secrets.token_hex(8)}
            body = {"agent_id": agent_id, "type": "work"}
            with ThreadPoolExecutor(50) as pool:
                posts = [pool.submit(_post, plane, "/tasks", body, key) for _ in range(50)]
                answers = [post.result() for post in posts]
            first = answers[0].json()["data"]["id"]
            assert {(answer.status_code, answer.json()["data"]["id"]) for answer in answers} == {(201, first)}
            delayed = client.post("/tasks", json=body | {"schedule": {"type": "delayed", "delay": 6}}).json()["data"]
            paused = client.post("/agents", json={"name": "Paused", "type": "keeper"}).json()["data"]["id"]
            client.post(f"/agents/{paused}/pause")
            client.get(f"/tasks/{first}", params={"wait": 30})
            before = client.get("/metrics", params={"period": "7d"}).json()
            assert before["data"]["metrics"]["task_completion_rate"][-1]["value"] == 100
            server.kill()
            time.sleep(0.5)
            plane.start_server()
            wait_until(lambda: plane.is_serving, 30, "not back")
            assert client.get("/metrics", params={"period": "7d"}).json() == before
            again = client.post("/tasks", json=body, headers=key)
            assert again.json()["data"]["id"] == first
            assert again.headers["Idempotent-Replayed"] == "true"
            assert client.get(f"/agents/{paused}").json()["data"]["health"]["status"] == "paused"
            done = client.get(f"/tasks/{delayed['id']}", params={"wait": 30}).json()["data"]
            assert (done["status"], done["attempt"]) == ("completed", 1)
            assert done["started_at"] >= delayed["ready_at"]
            assert client.get("/tasks").json()["pagination"]["total"] == 2


def _post(plane: ControlPlane, path: str, body: Any, headers: dict[str, str]) -> httpx2.Response:
    with plane.client() as client:
        return client.post(path, json=body, headers=headers)

"""A task that kills its process each time: it fails after five of them, and takes nobody else down with it."""

import threading
from pathlib import Path

import pytest

from tests.e2e.processes import ControlPlane, Process, wait_until

POISON = Path(__file__).parent / "poison.py"

pytestmark = pytest.mark.timeout(240)


def test_a_task_that_kills_its_process_each_time_fails_as_lost_and_all_others_complete(tmp_path: Path) -> None:
    environment = {"AGENT_ORCHESTRATION_LEASE_SECONDS": "3"}
    with ControlPlane(tmp_path, environment=environment) as plane:
        plane.start_dev()
        poisoned(plane)


def poisoned(plane: ControlPlane) -> None:
    with plane.client() as client:
        body = {"name": "Fragile", "type": "fragile", "configuration": {"max_concurrent_tasks": 10}}
        agent_id = client.post("/agents", json=body).json()["data"]["id"]
        tasks = [{"agent_id": agent_id, "type": "good"} for _ in range(50)]
        tasks.insert(5, {"agent_id": agent_id, "type": "poison"})
        made = client.post("/tasks/bulk", json={"tasks": tasks}).json()["data"]
        poison = next(task["id"] for task in made if task["type"] == "poison")
        ended = threading.Event()
        keeper = threading.Thread(target=keep_running, args=(plane, ended))
        keeper.start()
        try:
            wait_until(lambda: _total(plane, "completed") == 50, 120, "the good tasks have not completed")
            wait_until(lambda: _total(plane, "failed") == 1, 120, "the poisonous task has not failed")
        finally:
            ended.set()
            keeper.join(30)
        task = client.get(f"/tasks/{poison}").json()["data"]
        assert (task["status"], task["error"]["code"], task["attempt"]) == ("failed", "lost", 5)
        others = client.get("/tasks", params={"type": "good", "limit": 100}).json()["data"]
        assert max(other["attempt"] for other in others) <= 3, "after two losses it ran alone"


def keep_running(plane: ControlPlane, ended: threading.Event) -> None:
    """What a supervisor does: starts the runner again whenever it has ended."""
    number = 0
    runner: Process | None = None
    while not ended.wait(0.05):
        if runner is None or not runner.is_running:
            number += 1
            runner = plane.start_runner(POISON, name=f"runner{number}")
    if runner is not None and runner.is_running:
        runner.stop(40)


def _total(plane: ControlPlane, status: str) -> int:
    with plane.client() as client:
        return client.get("/tasks", params={"status": status}).json()["pagination"]["total"]

"""Promises 1 to 5 with real processes: kill -9 of every part, stopped and cut-off runners, under load."""

import json
import os
import random
import signal
import time
from collections.abc import AsyncGenerator
from pathlib import Path

import grpc
import psutil
import pytest

from agent_orchestration.v1 import runners_pb2, tasks_pb2
from tests.api.conftest import Api, attempt
from tests.e2e.processes import ControlPlane, wait_until
from tests.faults.conftest import LEASE_SECONDS
from tests.faults.load import Journal, Submitter, Watcher, assert_events_tell_it_all, create_agent, wait_for_end
from tests.faults.proxy import Proxy

WORKER = Path(__file__).parent / "worker.py"
ROUNDS = int(os.environ.get("SOAK_ROUNDS", "1"))
SEED = int(os.environ.get("SOAK_SEED", "1"))
SEEDS = range(SEED, SEED + ROUNDS)
TASKS = 200

pytestmark = pytest.mark.timeout(240)


def journal_of(plane: ControlPlane) -> Journal:
    return Journal.read(plane.folder / "journal")


@pytest.mark.parametrize("seed", SEEDS)
def test_a_killed_server_loses_nothing_and_running_work_is_not_restarted(plane: ControlPlane, seed: int) -> None:
    dice = random.Random(seed)
    server = plane.start_server()
    plane.start_gateway()
    agent_id = create_agent(plane)
    plane.start_runner(WORKER)
    with Watcher(plane, agent_id) as watcher:
        with Submitter(plane, agent_id, TASKS, seconds=0.3) as submitter:
            for pauses in ((0.0, 0.0), (LEASE_SECONDS * 1.2,)):
                submitter.wait(len(submitter.created) + dice.randrange(10, 60))
                time.sleep(dice.uniform(0, 0.1))
                for pause in pauses:
                    server.kill()
                    time.sleep(pause)
                    server = plane.start_server()
        tasks = wait_for_end(plane, submitter)
        assert_events_tell_it_all(watcher, tasks)
    journal = journal_of(plane)
    assert set(journal.runs) == tasks.keys()
    assert all(len(runs) == 1 for runs in journal.runs.values()), "work was restarted"


@pytest.mark.parametrize("seed", SEEDS)
def test_a_killed_gateway_costs_unanswered_requests_and_nothing_else(plane: ControlPlane, seed: int) -> None:
    dice = random.Random(seed)
    plane.start_server()
    gateway = plane.start_gateway()
    agent_id = create_agent(plane)
    plane.start_runner(WORKER)
    with Watcher(plane, agent_id) as watcher:
        with Submitter(plane, agent_id, TASKS, seconds=0.05) as submitter:
            for _ in range(3):
                submitter.wait(len(submitter.created) + dice.randrange(10, 60))
                time.sleep(dice.uniform(0, 0.1))
                gateway.kill()
                gateway = plane.start_gateway()
        tasks = wait_for_end(plane, submitter)
        assert_events_tell_it_all(watcher, tasks)
    assert all(len(runs) == 1 for runs in journal_of(plane).runs.values()), "work was restarted"


@pytest.mark.parametrize("seed", SEEDS)
def test_the_work_of_a_killed_runner_is_redone_and_each_task_has_one_outcome(plane: ControlPlane, seed: int) -> None:
    dice = random.Random(seed)
    plane.start_server()
    plane.start_gateway()
    agent_id = create_agent(plane)
    runner = plane.start_runner(WORKER)
    kills: list[float] = []
    with Watcher(plane, agent_id) as watcher:
        with Submitter(plane, agent_id, 80, seconds=0.5) as submitter:
            for _ in range(2):
                submitter.wait(len(submitter.created) + dice.randrange(4, 12))
                wait_until(lambda: running(plane) >= 4, 30, "fewer than 4 tasks run")
                runner.kill()
                kills.append(time.monotonic())
                runner = plane.start_runner(WORKER)
        tasks = wait_for_end(plane, submitter)
        assert_events_tell_it_all(watcher, tasks)
    journal = journal_of(plane)
    assert any(len(runs) > 1 for runs in journal.runs.values()), "nothing was running when it was killed"
    journal.assert_never_two_at_once(kills)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_killed_ao_dev_leaves_nothing_behind_and_the_next_one_goes_on(plane: ControlPlane, seed: int) -> None:
    dice = random.Random(seed)
    dev = plane.start_dev()
    agent_id = create_agent(plane)
    plane.start_runner(WORKER)
    with Watcher(plane, agent_id) as watcher:
        with Submitter(plane, agent_id, TASKS, seconds=0.05) as submitter:
            for _ in range(2):
                submitter.wait(len(submitter.created) + dice.randrange(10, 80))
                family = psutil.Process(dev.pid).children(recursive=True)
                dev.kill()
                _, alive = psutil.wait_procs(family, timeout=5)
                assert not alive, "children outlived the parent"
                dev = plane.start_dev()
        tasks = wait_for_end(plane, submitter)
        assert_events_tell_it_all(watcher, tasks)
    assert all(len(runs) == 1 for runs in journal_of(plane).runs.values()), "work was restarted"


def test_a_runner_stopped_past_its_lease_reports_nothing_of_what_others_have_taken_over(plane: ControlPlane) -> None:
    plane.start_server()
    plane.start_gateway()
    agent_id = create_agent(plane)
    stopped = plane.start_runner(WORKER, name="stopped")
    with Watcher(plane, agent_id) as watcher:
        with Submitter(plane, agent_id, 8, seconds=2.0) as submitter:
            wait_until(lambda: len(starts(watcher)) == 8, 30, "not every task has started")
            stopped.signal(signal.SIGSTOP)
            plane.start_runner(WORKER, name="other")
            wait_until(lambda: len(starts(watcher)) == 16, 30, "not every task was taken over")
            stopped.signal(signal.SIGCONT)
        tasks = wait_for_end(plane, submitter)
        time.sleep(1.0)
        assert_events_tell_it_all(watcher, tasks)
    assert {task["attempt"] for task in tasks.values()} == {2}
    assert {task["result"]["attempt"] for task in tasks.values()} == {2}
    assert stopped.is_running


async def test_a_runner_that_does_not_heed_its_lease_is_refused_without_trace(plane: ControlPlane) -> None:
    plane.start_server()
    plane.start_gateway()
    agent_id = create_agent(plane)
    async with grpc.aio.insecure_channel(plane.grpc_address) as channel:
        api = Api(plane.grpc_address, plane.api_key, channel)
        payload = json.dumps({"number": 1, "seconds": 3.0})
        async with api.runner(agent_id, instance_id="heedless") as heedless:
            task_id = await api.create_task(agent_id, payload)
            assert (await heedless.assigned()).attempt.number == 1
            plane.start_runner(WORKER)
            await heedless.ended()
        async with api.runner(agent_id, instance_id="heedless", held=[(task_id, 1)]) as heedless:
            await heedless.receive("cancel")
            reported = (task async for task in watched(api, task_id) if task.progress == 50 and task.logs)
            before = (await anext(reported)).SerializeToString(deterministic=True)
            stale = attempt(task_id, 1)
            report = runners_pb2.ProgressReport(attempt=stale, progress=99)
            await heedless.send(progress=runners_pb2.Progress(reports=[report]))
            assert not await heedless.finish(task_id, 1, result='{"stale":true}')
            assert (await api.task(task_id)).SerializeToString(deterministic=True) == before

        last = [task async for task in watched(api, task_id)][-1]
        assert json.loads(last.result) == {"number": 1, "attempt": 2}


@pytest.mark.parametrize("seed", SEEDS)
def test_cuts_between_runner_and_server_restart_no_work(plane: ControlPlane, seed: int) -> None:
    dice = random.Random(seed)
    plane.start_server()
    plane.start_gateway()
    agent_id = create_agent(plane)
    with Proxy(plane.grpc_port) as proxy, Watcher(plane, agent_id) as watcher:
        plane.start_runner(WORKER, server=proxy.address)
        with Submitter(plane, agent_id, TASKS, seconds=0.05) as submitter:
            for _ in range(5):
                submitter.wait(len(submitter.created) + dice.randrange(5, 40))
                proxy.cut()
        tasks = wait_for_end(plane, submitter)
        assert_events_tell_it_all(watcher, tasks)
        journal_of(plane).assert_never_two_at_once()
        with plane.client() as client:
            assert client.get(f"/agents/{agent_id}").json()["data"]["status"] == "active"


@pytest.mark.parametrize("silent", ["to_server", "to_client"])
def test_a_one_way_silence_stops_the_attempts_before_others_get_them(plane: ControlPlane, silent: str) -> None:
    plane.start_server()
    plane.start_gateway()
    agent_id = create_agent(plane)
    with Proxy(plane.grpc_port) as proxy, Watcher(plane, agent_id) as watcher:
        plane.start_runner(WORKER, server=proxy.address, name="silenced")
        with Submitter(plane, agent_id, 8, seconds=LEASE_SECONDS * 1.6) as submitter:
            wait_until(lambda: len(starts(watcher)) == 8, 30, "not every task has started")
            proxy.silence(**{silent: True})
            plane.start_runner(WORKER, name="other")
            wait_until(lambda: len(starts(watcher)) >= 16, 60, "not every task was taken over")
        proxy.silence()
        tasks = wait_for_end(plane, submitter)
        assert_events_tell_it_all(watcher, tasks)
    journal_of(plane).assert_never_two_at_once()


async def watched(api: Api, task_id: str) -> AsyncGenerator[tasks_pb2.Task, None]:
    request = tasks_pb2.WatchTaskRequest(task_id=task_id)
    async for response in api.tasks.WatchTask(request, metadata=api.admin, timeout=30):
        yield response.data


def running(plane: ControlPlane) -> int:
    with plane.client() as client:
        found = client.get("/tasks", params={"status": "running", "limit": 1})
        return found.json()["pagination"]["total"]


def starts(watcher: Watcher) -> list[str]:
    return [event["payload"]["id"] for event in watcher.events if event["type"] == "task_started"]

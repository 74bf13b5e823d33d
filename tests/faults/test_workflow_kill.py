"""Workflows with real processes: kill -9 of server and runner at any moment, under executions of every kind."""

import random
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from tests.e2e.processes import ControlPlane, wait_until
from tests.faults import flows
from tests.faults.flow_checks import assert_counted_once, assert_events_tell_of_executions, assert_whole
from tests.faults.flows import Patient
from tests.faults.load import END_SECONDS, Journal, Watcher
from tests.faults.test_kill import SEEDS, WORKER

KILLS = 8
FOLLOWED = 2
CLIENTS = 8

pytestmark = pytest.mark.timeout(300)


def dice_of(seed: int) -> random.Random:
    """Dice; the seed is printed with the failure of a test."""
    print(f"SOAK_SEED={seed} SOAK_ROUNDS=1")
    return random.Random(seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_server_killed_at_any_moment_loses_no_step_and_counts_none_twice(plane: ControlPlane, seed: int) -> None:
    dice = dice_of(seed)
    server = plane.start_server()
    plane.start_gateway()
    plane.start_runner(WORKER, name="one")
    runner = plane.start_runner(WORKER, name="two")
    # Its work is handed out again a lease later: that time is spent once, in every other round.
    kills_runner = (seed % 2 == 1) == (plane.database_url is None)
    runner_kills: list[float] = []
    with ExitStack() as stack:
        watcher = stack.enter_context(Watcher(plane, channel="workflow_events"))
        pool = stack.enter_context(ThreadPoolExecutor(CLIENTS))
        patients = [
            stack.enter_context(Patient(plane, random.Random(f"{seed} client {number}"))) for number in range(CLIENTS)
        ]
        workflows = flows.keep(patients[0])
        enough = threading.Event()
        clients = [pool.submit(keep_executing, patient, workflows, enough) for patient in patients]
        try:
            for number in range(KILLS):
                wait_for_answers(patients, dice.randrange(40))
                if kills_runner and number == KILLS - 1:
                    runner.kill()
                    runner_kills.append(time.monotonic())
                    plane.start_runner(WORKER, name="three")
                time.sleep(dice.uniform(0, 0.2))
                server.kill()
                if dice.random() < 0.2:
                    # While it starts.
                    server = plane.ao("server", "--grpc-port", str(plane.grpc_port))
                    time.sleep(dice.uniform(0.2, 1.5))
                    server.kill()
                server = plane.start_server()
        finally:
            enough.set()
        begun = [identifier for client in clients for identifier in client.result(END_SECONDS)]
        print(len(begun), "executions")
        executions = assert_whole(patients[0], begun)
        assert_events_tell_of_executions(watcher, executions)
        assert_counted_once(patients[0], executions, Journal.read(plane.folder / "journal"), runner_kills)


def wait_for_answers(patients: Sequence[Patient], count: int) -> None:
    """Until so many more requests are answered: work is under way then, on a slow machine too."""
    first = sum(patient.answered for patient in patients)
    wait_until(
        lambda: sum(patient.answered for patient in patients) > first + count, END_SECONDS, "too little was answered"
    )


def keep_executing(patient: Patient, workflows: Mapping[str, str], enough: threading.Event) -> list[str]:
    """Begins one execution after the other, each kind in its turn, and sees each through to its end."""
    begun: list[str] = []
    names = list(workflows)
    patient.dice.shuffle(names)
    while not enough.is_set():
        name = names[len(begun) % len(names)]
        begun.append(flows.run(name, workflows[name], patient))
    return begun


@pytest.mark.parametrize("seed", SEEDS)
def test_a_server_killed_when_the_event_of_a_step_is_seen_goes_on_behind_it(plane: ControlPlane, seed: int) -> None:
    dice = dice_of(seed)
    server = plane.start_server()
    plane.start_gateway()
    plane.start_runner(WORKER)
    begun: list[str] = []
    with Patient(plane, dice) as patient, Watcher(plane, channel="workflow_events") as watcher:
        workflows = flows.keep(patient)
        for number in range(FOLLOWED):
            name = ("graph", "chain")[number % 2]
            parameters = {"seconds": dice.choice([0, 0.05, 0.5]), "on": False}
            execution = patient.made(f"/workflows/{workflows[name]}/execute", {"parameters": parameters})["id"]
            begun.append(execution)
            wait_for_step(watcher, execution, "a", dice.choice(["started", "completed", "completed"]))
            server.kill()
            time.sleep(dice.choice([0, 0.6]))
            server = plane.start_server()
            assert patient.ended(execution)["output"] == flows.output_of(name, [])
        executions = assert_whole(patient, begun)
        assert_events_tell_of_executions(watcher, executions)
        assert_counted_once(patient, executions, Journal.read(plane.folder / "journal"))


def wait_for_step(watcher: Watcher, execution_id: str, step_id: str, status: str) -> None:
    """Returns as soon as the event is heard."""
    deadline = time.monotonic() + END_SECONDS
    seen = 0
    while time.monotonic() < deadline:
        for event in watcher.events[seen:]:
            payload, seen = event["payload"], seen + 1
            is_meant = payload["execution"]["id"] == execution_id and payload.get("step", {}).get("id") == step_id
            if is_meant and event["type"] == f"workflow_step_{status}":
                return
        time.sleep(0.001)
    raise AssertionError(f"{step_id} of {execution_id} was not heard to be {status}")

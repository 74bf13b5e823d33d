"""The real server, gateway and runners, as processes on a folder of their own."""

import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import grpc
import pytest

from agent_orchestration.v1 import agents_pb2, agents_pb2_grpc, tasks_pb2, tasks_pb2_grpc
from benchmarks.figure import Unavailable
from benchmarks.processes import ROOT
from tests.conftest import postgres_database
from tests.e2e.processes import ControlPlane

AGENT_FILE: Final = ROOT / "benchmarks" / "noop_agent.py"
START_SECONDS: Final = 60.0
POLL_SECONDS: Final = 0.05
CONNECTED: Final = "connected"
MESSAGE_BYTES: Final = 16 * 1024 * 1024


@contextmanager
def control_plane(folder: Path, *, postgres: bool = False) -> Generator[ControlPlane, None, None]:
    """A control plane of which nothing runs yet, on SQLite or on a PostgreSQL database of its own."""
    environment = {"PYTHONPATH": str(ROOT)}
    if not postgres:
        with ControlPlane(folder, environment=environment) as plane:
            yield plane
        return
    with postgres_url() as url, ControlPlane(folder, database_url=url, environment=environment) as plane:
        yield plane


@contextmanager
def postgres_url() -> Generator[str, None, None]:
    """The URL of an empty PostgreSQL database, dropped afterwards. Unavailable where there is no PostgreSQL."""
    try:
        with postgres_database() as url:
            yield url
    except pytest.skip.Exception as missing:
        raise Unavailable(str(missing)) from None


@contextmanager
def channel(plane: ControlPlane) -> Generator[Any, None, None]:
    """A plain gRPC channel to the server; see `credential`."""
    options = [("grpc.max_receive_message_length", MESSAGE_BYTES), ("grpc.max_send_message_length", MESSAGE_BYTES)]
    with grpc.insecure_channel(plane.grpc_address, options=options) as opened:
        yield opened


def credential(plane: ControlPlane) -> tuple[tuple[str, str], ...]:
    """Metadata of a call by the admin."""
    return (("authorization", f"Bearer {plane.api_key}"),)


def start_runners(plane: ControlPlane, processes: int, slots: int, file: Path = AGENT_FILE) -> str:
    """Starts so many processes of the no-op agent, each with so many slots; its id, once all of them are connected."""
    plane.environment = {**plane.environment, "NOOP_SLOTS": str(slots)}
    started = [plane.start_runner(file, name=f"runner{number}") for number in range(processes)]
    for runner in started:
        runner.error(CONNECTED, START_SECONDS)
    with channel(plane) as opened:
        service = agents_pb2_grpc.AgentServiceStub(opened)
        return service.ListAgents(agents_pb2.ListAgentsRequest(type="noop"), metadata=credential(plane)).data[0].id


def completed(plane: ControlPlane, opened: Any) -> int:
    """How many tasks of the project are completed."""
    asked = tasks_pb2.ListTasksRequest(status=tasks_pb2.TASK_STATUS_COMPLETED, limit=1)
    return tasks_pb2_grpc.TaskServiceStub(opened).ListTasks(asked, metadata=credential(plane)).pagination.total


def wait_for_completed(plane: ControlPlane, opened: Any, wanted: int, seconds: float) -> None:
    """Waits until so many tasks are completed; fails after so many seconds."""
    deadline = time.monotonic() + seconds
    while (found := completed(plane, opened)) < wanted:
        if time.monotonic() > deadline:
            raise AssertionError(f"{found} of {wanted} tasks are completed after {seconds:.0f} s")
        time.sleep(POLL_SECONDS)

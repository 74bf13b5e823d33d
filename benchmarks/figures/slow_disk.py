"""Work on a slow disk, a delay in front of each commit: the longest gap of the server's event loop in milliseconds.

Creates come over REST on 128 connections while 4 processes run them. The same without a delay is measured first: with
it, each commit must carry more; and no lease may run out.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks import load, stack
from benchmarks.figure import Figure, Run, constant
from tests.e2e.processes import NO_LIMITS, ControlPlane, Process

DELAY_SECONDS: Final = 0.05
LOAD_SECONDS: Final = 8.0
LEAST_SECONDS: Final = 4.0
# Shorter than the load: whoever sends no heartbeat in time is lost within it.
LEASE_SECONDS: Final = 3.0
CONNECTIONS: Final = 128
RUNNERS: Final = 4
SLOTS: Final = 50
SERVER: Final = "benchmarks.slow_server"
LEASE_LOST: Final = "lease_expired"


@dataclass(frozen=True, slots=True)
class _Outcome:
    """`gaps`: the longest of each second, in seconds, with the processor time in it."""

    creates: float
    creates_a_commit: float
    gaps: list[tuple[float, float]]
    refused: int
    leases_lost: int


def measure(run: Run) -> float:
    """Milliseconds."""
    fast, slow = (_work(run, run.folder / name, delay) for name, delay in (("fast", 0.0), ("slow", DELAY_SECONDS)))
    run.notes["creates a commit"] = f"{slow.creates_a_commit:.1f}, without a delay {fast.creates_a_commit:.1f}"
    run.notes["creates a second"] = f"{slow.creates:,.0f}, without a delay {fast.creates:,.0f}; {slow.refused} refused"
    gap, used = max(slow.gaps)
    run.notes["longest gap"] = (
        f"{1e3 * gap:.0f} ms, {1e3 * used:.0f} ms of them on the processor; of a median second "
        f"{1e3 * median(gap for gap, _ in slow.gaps):.0f} ms; without a delay {1e3 * max(fast.gaps)[0]:.0f} ms"
    )
    run.notes["leases lost"] = slow.leases_lost
    assert slow.leases_lost == 0, f"{slow.leases_lost} leases ran out"
    assert slow.creates_a_commit > fast.creates_a_commit, run.notes["creates a commit"]
    return 1e3 * gap


def _work(run: Run, folder: Path, delay: float) -> _Outcome:
    folder.mkdir()
    with stack.control_plane(folder) as plane:
        plane.environment = {**plane.environment, "AGENT_ORCHESTRATION_LEASE_SECONDS": str(LEASE_SECONDS)}
        server = _start_server(plane, delay)
        plane.start_gateway()
        agent_id = stack.start_runners(plane, RUNNERS, SLOTS)
        seconds_before = _seconds(server)
        done = load.post(
            f"{plane.rest_url}/tasks",
            json.dumps(
                {"agent_id": agent_id, "type": "noop", "payload": {"source": "sales.csv", "count": 50}}
            ).encode(),
            connections=CONNECTIONS,
            seconds=max(LEAST_SECONDS, LOAD_SECONDS * run.scale),
            headers={"Authorization": f"Bearer {plane.api_key}"},
        )
        seconds = _seconds(server)[len(seconds_before) :]
        lost = server.errors.count(LEASE_LOST)
    commits = sum(count for count, _, _ in seconds)
    made = done.requests - done.refused
    return _Outcome(made / done.seconds, made / commits, [(gap, used) for _, gap, used in seconds], done.refused, lost)


def _start_server(plane: ControlPlane, delay: float) -> Process:
    """In the place of `plane.start_server()`."""
    environment = {**os.environ, **NO_LIMITS, **plane.environment}
    words = [plane.python, "-m", SERVER, str(delay), "--grpc-port", "0"]
    server = Process(words, folder=plane.folder, environment=environment, name="server")
    plane.processes.append(server)
    plane.grpc_port = int(server.line("gRPC ").rsplit(":", 1)[1])
    return server


def _seconds(server: Process) -> list[tuple[int, float, float]]:
    """Of each second so far: commits, the longest gap, the processor time in it."""
    told = [line.split()[1:] for line in server.lines if line.startswith("second ")]
    return [(int(commits), float(gap), float(used)) for commits, gap, used in told]


FIGURES: Final = [
    Figure(
        name="slow disk, longest gap of the event loop",
        unit="ms",
        measure=measure,
        baseline=constant(50.0),
        must=constant(50.0),
        aim=constant(50.0),
        told="must 50 ms; more to a commit, no lease lost",
        is_higher_better=False,
        is_long=True,
    ),
]

"""What access costs: creates over REST with credentials, scopes and rate limits, and without all three.

Two control planes take turns under the same load. One is the product, with limits that are never reached; in the other
the functions that check are replaced. Each turn is compared with the one beside it.
"""

import json
import os
from dataclasses import dataclass, field
from statistics import median
from typing import Final

from benchmarks import load, stack
from benchmarks.figure import Figure, Run, constant
from benchmarks.figures.rest_create import DOCUMENT
from benchmarks.processes import cpu_seconds
from tests.e2e.processes import NO_LIMITS, ControlPlane, Process

PAIRS: Final = 5
LEAST_PAIRS: Final = 3
SECONDS: Final = 4.0
WARM_SECONDS: Final = 1.0
CONNECTIONS: Final = 128
NEVER_REACHED: Final = "1000000000"
UNCHECKED: Final = "benchmarks.unchecked"


@dataclass
class _Side:
    """One of the two control planes, and what came of its turns."""

    plane: ControlPlane
    processes: list[Process]
    task: bytes
    # Creates a second, of each turn.
    rates: list[float] = field(default_factory=list[float])
    made: int = 0
    used: float = 0.0

    @property
    def microseconds(self) -> float:
        """Processor time of both halves for a create."""
        return 1e6 * self.used / self.made

    def turn(self, seconds: float) -> None:
        """Takes load for so long."""
        before = self._cpu_seconds()
        done = _post(self.plane, self.task, seconds)
        self.used += self._cpu_seconds() - before
        self.made += done.requests
        self.rates.append(done.a_second)

    def _cpu_seconds(self) -> float:
        return sum(cpu_seconds(each.pid) for each in self.processes)


def measure(run: Run) -> float:
    """Percent of the throughput."""
    for name in ("checked", "unchecked"):
        (run.folder / name).mkdir()
    with (
        stack.control_plane(run.folder / "checked") as plane,
        stack.control_plane(run.folder / "unchecked") as other,
    ):
        plane.environment = {**plane.environment, **dict.fromkeys(NO_LIMITS, NEVER_REACHED)}
        checked = _side(plane, [plane.start_server(), plane.start_gateway()])
        unchecked = _side(other, _start_unchecked(other))
        for pair in range(run.count(PAIRS, LEAST_PAIRS)):
            # Who comes second finds a machine that has just worked.
            for side in (checked, unchecked) if pair % 2 else (unchecked, checked):
                side.turn(max(1.0, SECONDS * run.scale))
    costs = [100.0 * (1.0 - with_ / without) for with_, without in zip(checked.rates, unchecked.rates, strict=True)]
    run.notes["creates a second"] = (
        f"{median(checked.rates):,.0f}, unchecked {median(unchecked.rates):,.0f}; the cost by each pair: "
        + ", ".join(f"{each:.1f} %" for each in costs)
    )
    run.notes["CPU a create"] = f"{checked.microseconds:.0f} µs, unchecked {unchecked.microseconds:.0f} µs"
    return median(costs)


def _side(plane: ControlPlane, processes: list[Process]) -> _Side:
    side = _Side(plane, processes, _task(plane))
    _post(plane, side.task, WARM_SECONDS)
    return side


def _start_unchecked(plane: ControlPlane) -> list[Process]:
    """In the place of `plane.start_server()` and `plane.start_gateway()`."""
    server = _half(plane, "server", "--grpc-port", "0")
    plane.grpc_port = int(server.line("gRPC ").rsplit(":", 1)[1])
    gateway = _half(plane, "gateway", "--port", "0", "--server", plane.grpc_address)
    plane.port = int(gateway.line("REST ").removesuffix("/v1").rsplit(":", 1)[1])
    return [server, gateway]


def _half(plane: ControlPlane, *arguments: str) -> Process:
    process = Process(
        [plane.python, "-m", UNCHECKED, *arguments],
        folder=plane.folder,
        environment={**os.environ, **plane.environment},
        name=arguments[0],
    )
    plane.processes.append(process)
    return process


def _task(plane: ControlPlane) -> bytes:
    """The body of a create, for an agent without a process."""
    with plane.client() as client:
        agent_id = client.post("/agents", json={"name": "idle", "type": "idle"}).json()["data"]["id"]
    payload = {"document": DOCUMENT, "n": 12345}
    return json.dumps({"agent_id": agent_id, "type": "noop", "priority": "high", "payload": payload}).encode()


def _post(plane: ControlPlane, task: bytes, seconds: float) -> load.Load:
    headers = {"Authorization": f"Bearer {plane.api_key}"}
    done = load.post(f"{plane.rest_url}/tasks", task, connections=CONNECTIONS, seconds=seconds, headers=headers)
    assert not done.refused, f"{done.refused} creates were refused"
    return done


FIGURES: Final = [
    Figure(
        name="access, its cost in creates",
        unit="%",
        measure=measure,
        baseline=constant(15.0),
        must=constant(15.0),
        aim=constant(15.0),
        told="must 15 % of the creates without credentials, scopes and rate limits",
        is_higher_better=False,
        is_long=True,
    ),
]

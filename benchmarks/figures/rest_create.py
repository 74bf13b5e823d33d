"""Tasks created one by one over REST, each answer durable: requests per second of so many connections.

The tasks' agent has no process, so that nothing else is done meanwhile.
"""

import json
from functools import partial
from typing import Final

from benchmarks import load, stack
from benchmarks.figure import Figure, Run
from benchmarks.processes import cpu_seconds

SECONDS: Final = 4.0
WARM_SECONDS: Final = 1.0
# The request has about 300 B.
DOCUMENT: Final = "x" * 170


def measure(run: Run, connections: int) -> float:
    """Created tasks per second."""
    with stack.control_plane(run.folder) as plane:
        processes = {"server": plane.start_server(), "gateway": plane.start_gateway()}
        with plane.client() as client:
            agent_id = client.post("/agents", json={"name": "idle", "type": "idle"}).json()["data"]["id"]
        task = {"agent_id": agent_id, "type": "noop", "priority": "high", "payload": {"document": DOCUMENT, "n": 12345}}
        post = partial(
            load.post,
            f"{plane.rest_url}/tasks",
            json.dumps(task).encode(),
            connections=connections,
            headers={"Authorization": f"Bearer {plane.api_key}"},
        )
        post(seconds=WARM_SECONDS)
        before = {name: cpu_seconds(process.pid) for name, process in processes.items()}
        done = post(seconds=max(1.0, SECONDS * run.scale))
        used = {name: cpu_seconds(process.pid) - before[name] for name, process in processes.items()}
    assert not done.refused, f"{done.refused} creates were refused"
    run.notes["CPU a request"] = ", ".join(
        f"{name} {1e6 * seconds / done.requests:.0f} µs" for name, seconds in used.items()
    )
    run.notes["latency"] = f"p50 {1e3 * done.p50:.1f} ms, p99 {1e3 * done.p99:.1f} ms"
    return done.a_second


def _figure(connections: int, aim: float) -> Figure:
    return Figure(
        name=f"REST create, durable, {connections} connections",
        unit="requests/s",
        measure=partial(measure, connections=connections),
        beside=("B1",),
        baseline=lambda b: b["B1"],
        must=lambda b: 1.2 * b["B1"],
        aim=lambda b: aim * b["B1"],
        told=f"must 1.2 B1, aim {aim} B1",
    )


FIGURES: Final = [_figure(32, 2.2), _figure(128, 3.5)]

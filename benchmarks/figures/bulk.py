"""A bulk create of 1,000 tasks over gRPC, durable when it is answered, with nobody to run them: milliseconds, p50."""

import time
from statistics import median
from typing import Final

from agent_orchestration.v1 import agents_pb2, agents_pb2_grpc, tasks_pb2, tasks_pb2_grpc
from benchmarks import stack
from benchmarks.figure import Baselines, Figure, Run
from benchmarks.processes import cpu_seconds

BULK: Final = 1_000
BULKS: Final = 40
WARM: Final = 3
PAYLOAD: Final = '{"source": "sales.csv", "first": 0, "count": 50}'


def measure(run: Run) -> float:
    """Median milliseconds of bulk creates, one after the other."""
    with stack.control_plane(run.folder) as plane:
        server = plane.start_server()
        metadata = stack.credential(plane)
        with stack.channel(plane) as opened:
            asked = agents_pb2.CreateAgentRequest(name="nobody", type="worker")
            agent = agents_pb2_grpc.AgentServiceStub(opened).CreateAgent(asked, metadata=metadata).data
            each = tasks_pb2.CreateTaskRequest(agent_id=agent.id, type="noop", payload=PAYLOAD)
            bulk = tasks_pb2.CreateTasksRequest(tasks=[each] * BULK)
            service = tasks_pb2_grpc.TaskServiceStub(opened)
            for _ in range(WARM):
                service.CreateTasks(bulk, metadata=metadata)
            used, took = cpu_seconds(server.pid), list[float]()
            for _ in range(run.count(BULKS, 15)):
                begin = time.perf_counter()
                service.CreateTasks(bulk, metadata=metadata)
                took.append(time.perf_counter() - begin)
            used = cpu_seconds(server.pid) - used
    run.notes["CPU a task"] = f"server {1e6 * used / (BULK * len(took)):.0f} µs"
    return 1e3 * median(took)


def _must(baselines: Baselines) -> float:
    return 1e3 * (25 * baselines["B3"] + BULK / (baselines["B3r"] / 6))


FIGURES: Final = [
    Figure(
        name="bulk create of 1,000, p50",
        unit="ms",
        measure=measure,
        beside=("B3", "B3r"),
        baseline=_must,
        must=_must,
        aim=lambda b: _must(b) / 2,
        told="must 25 B3 + 1,000 ÷ (B3r ÷ 6), aim half of it",
        is_higher_better=False,
    ),
]

"""No-op tasks from a bulk create over gRPC to their outcome, every transition durable: tasks per second."""

import time
from functools import partial
from typing import Any, Final

from agent_orchestration.v1 import tasks_pb2, tasks_pb2_grpc
from benchmarks import stack
from benchmarks.figure import Figure, Run
from benchmarks.processes import cpu_seconds
from tests.e2e.processes import ControlPlane

RUNNERS: Final = 4
BULK: Final = 1_000
PAYLOAD: Final = '{"source": "sales.csv", "first": 0, "count": 50}'
DEADLINE_SECONDS: Final = 120.0


def measure(run: Run, slots: int, whole: int, postgres: bool = False) -> float:
    """Tasks per second from the first create to the last completion, by 4 runner processes with so many slots each."""
    with stack.control_plane(run.folder, postgres=postgres) as plane:
        plane.start_server()
        agent_id = stack.start_runners(plane, RUNNERS, slots)
        with stack.channel(plane) as opened:
            _drain(plane, opened, agent_id, BULK, 0)
            count = run.count(whole, 2 * BULK) // BULK * BULK
            before = [cpu_seconds(process.pid) for process in plane.processes]
            seconds = _drain(plane, opened, agent_id, count, BULK)
            used = [cpu_seconds(process.pid) - then for process, then in zip(plane.processes, before, strict=True)]
    run.notes["CPU a task"] = f"server {1e6 * used[0] / count:.0f} µs, runners {1e6 * sum(used[1:]) / count:.0f} µs"
    return count / seconds


def _drain(plane: ControlPlane, opened: Any, agent_id: str, count: int, before: int) -> float:
    """Seconds that so many tasks take; `before`: as many are completed already."""
    service = tasks_pb2_grpc.TaskServiceStub(opened)
    each = tasks_pb2.CreateTaskRequest(agent_id=agent_id, type="noop", payload=PAYLOAD)
    bulk = tasks_pb2.CreateTasksRequest(tasks=[each] * BULK)
    begin = time.perf_counter()
    sent = [service.CreateTasks.future(bulk, metadata=stack.credential(plane)) for _ in range(count // BULK)]
    for answer in sent:
        answer.result()
    stack.wait_for_completed(plane, opened, before + count, DEADLINE_SECONDS)
    return time.perf_counter() - begin


FIGURES: Final = [
    Figure(
        name="end to end, 4 x 200 slots",
        unit="tasks/s",
        measure=partial(measure, slots=200, whole=20_000),
        beside=("B3r",),
        baseline=lambda b: b["B3r"],
        must=lambda b: b["B3r"] / 28,
        aim=lambda b: b["B3r"] / 14,
        told="must B3r ÷ 28, aim B3r ÷ 14",
    ),
    Figure(
        name="end to end, 4 x 10 slots",
        unit="tasks/s",
        measure=partial(measure, slots=10, whole=10_000),
        beside=("B3r",),
        baseline=lambda b: b["B3r"],
        must=lambda b: b["B3r"] / 50,
        aim=lambda b: b["B3r"] / 20,
        told="must B3r ÷ 50, aim B3r ÷ 20",
    ),
]

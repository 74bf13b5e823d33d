"""Creates with 1,000,000 tasks in the file beside creates with 10,000, in turns: the ratio of their rates.

Two servers are up at the same time, each on its file. Bulk creates over gRPC are what takes most of the store.
"""

import shutil
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any, Final

from agent_orchestration.v1 import agents_pb2, agents_pb2_grpc, tasks_pb2, tasks_pb2_grpc
from benchmarks import filling, stack
from benchmarks.figure import Figure, Run, constant
from benchmarks.processes import cpu_seconds

FEW: Final = 10_000
MANY: Final = 1_000_000
QUICK: Final = 100_000
BULK: Final = 500
# Bulk creates on their way at the same time, bulks of a turn, and turns of each.
WINDOW: Final = 3
BULKS: Final = 4
TURNS: Final = 24
PAYLOAD: Final = '{"source": "sales.csv", "first": 0, "count": 50}'


class _Store:
    """A server on a copy of a filled file."""

    def __init__(self, up: ExitStack, folder: Path, tasks: int) -> None:
        self._plane = up.enter_context(stack.control_plane(folder))
        self._plane.data_dir.mkdir(parents=True, mode=0o700)
        shutil.copy(filling.filled(tasks)[0], self._plane.data_dir / "ao.db")
        self._server = self._plane.start_server()
        self._metadata = stack.credential(self._plane)
        opened: Any = up.enter_context(stack.channel(self._plane))
        asked = agents_pb2.CreateAgentRequest(name="nobody", type="worker")
        agent = agents_pb2_grpc.AgentServiceStub(opened).CreateAgent(asked, metadata=self._metadata).data
        each = tasks_pb2.CreateTaskRequest(agent_id=agent.id, type="noop", payload=PAYLOAD)
        self._bulk = tasks_pb2.CreateTasksRequest(tasks=[each] * BULK)
        self._service = tasks_pb2_grpc.TaskServiceStub(opened)
        self.turns: list[float] = []
        self.cpu = 0.0

    def turn(self) -> None:
        """Creates some, and counts how long it takes."""
        begin, used = time.perf_counter(), cpu_seconds(self._server.pid)
        sent: list[Any] = []
        for _ in range(BULKS):
            sent.append(self._service.CreateTasks.future(self._bulk, metadata=self._metadata))
            if len(sent) >= WINDOW:
                sent.pop(0).result()
        for answer in sent:
            answer.result()
        self.turns.append(time.perf_counter() - begin)
        self.cpu += cpu_seconds(self._server.pid) - used


def measure(run: Run) -> float:
    """Rate with many over rate with few."""
    turns = run.count(TURNS, 8)
    with ExitStack() as up:
        stores: dict[int, _Store] = {}
        for tasks in (FEW, MANY if run.scale >= 1.0 else QUICK):
            (run.folder / f"{tasks}").mkdir()
            stores[tasks] = _Store(up, run.folder / f"{tasks}", tasks)
        few, many = stores.values()
        for store in (few, many):
            store.turn()
            store.turns.clear()
            store.cpu = 0.0
        for turn in range(turns):
            for store in (few, many) if turn % 2 else (many, few):
                store.turn()
    made = BULKS * BULK
    for tasks, store in stores.items():
        rate, cpu = made / median(store.turns), 1e6 * store.cpu / (turns * made)
        run.notes[f"{tasks:,} tasks"] = f"{rate:,.0f} creates/s, CPU {cpu:.1f} µs each"
    return median(few.turns) / median(many.turns)


FIGURES: Final = [
    Figure(
        name="creates with 1,000,000 tasks in the file",
        unit="x with 10,000",
        measure=measure,
        baseline=constant(1.0),
        must=constant(0.9),
        aim=constant(1.0),
        told="must 0.9, aim 1.0 of the rate with 10,000",
        is_long=True,
    ),
]

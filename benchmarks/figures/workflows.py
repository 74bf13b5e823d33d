"""What a step of a workflow costs: beside a bare task of the same moment, and late in an execution beside early in it.

A fan-out is compared by processor time, a chain by its latency, and the growth by time and by bytes written. Bare tasks
and executions take turns on one control plane, so that a machine whose speed drifts drifts for both.
"""

import sqlite3
from bisect import bisect_left
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from statistics import mean, median
from typing import Any, Final

import httpx2

from agent_orchestration.v1 import tasks_pb2, tasks_pb2_grpc
from benchmarks import stack
from benchmarks.figure import Figure, Run, constant
from benchmarks.figures.latency import Latency
from benchmarks.processes import Sample, cpu_seconds, sampled
from tests.e2e.processes import ControlPlane

RUNNERS: Final = 4
SLOTS: Final = 200
DEADLINE_SECONDS: Final = 120.0
PAYLOAD: Final = '{"source": "sales.csv", "first": 0, "count": 50}'

FAN_OUT: Final = 1_000
# Of a turn: executions, and as many bulk creates, one after the other.
FAN_OUTS: Final = 2
FAN_OUT_PAIRS: Final = 7

CHAIN: Final = 100
CHAIN_PAIRS: Final = 7
CHAIN_SLOTS: Final = 10

ITEMS: Final = 10_000
PARALLEL: Final = 100
EXECUTIONS: Final = 3
# The items around the 100th and the 10,000th, in the order in which they were completed.
EARLY: Final = (100, 1_100)
LATE: Final = (9_000, 10_000)
SAMPLE_SECONDS: Final = 0.01


def fan_out(run: Run) -> float:
    """Processor time of server, gateway and runners for a step, as a multiple of that for a bare task."""
    with stack.control_plane(run.folder) as plane:
        plane.start_server()
        plane.start_gateway()
        agent_id = stack.start_runners(plane, RUNNERS, SLOTS)
        with stack.channel(plane) as opened, plane.client() as client:
            fans = _FanOuts(plane, opened, client, agent_id)
            fans.bare(1)
            fans.steps(1)
            bare: list[float] = []
            steps: list[float] = []
            for pair in range(run.count(FAN_OUT_PAIRS, 3)):
                # Who comes second finds a machine that has just worked.
                turns = (fans.bare, bare), (fans.steps, steps)
                for turn, costs in turns if pair % 2 else turns[::-1]:
                    costs.append(turn(FAN_OUTS))
    ratios = [step / task for step, task in zip(steps, bare, strict=True)]
    run.notes["CPU"] = f"a step {median(steps):.0f} µs, a bare task {median(bare):.0f} µs; by pair {_listed(ratios)}"
    return median(ratios)


class _FanOuts:
    """Executions that fan out, and as many bare tasks, on one control plane."""

    def __init__(self, plane: ControlPlane, opened: Any, client: httpx2.Client, agent_id: str) -> None:
        self._plane = plane
        self._opened = opened
        self._client = client
        self._service = tasks_pb2_grpc.TaskServiceStub(opened)
        each = tasks_pb2.CreateTaskRequest(agent_id=agent_id, type="noop", payload=PAYLOAD)
        self._bulk = tasks_pb2.CreateTasksRequest(tasks=[each] * FAN_OUT)
        self._workflow_id = _create(client, [_each_item(FAN_OUT)])
        self._completed = 0

    def bare(self, times: int) -> float:
        """Microseconds of processor time for each task."""
        before = self._cpu_seconds()
        for _ in range(times):
            self._service.CreateTasks(self._bulk, metadata=stack.credential(self._plane))
            self._wait()
        return 1e6 * (self._cpu_seconds() - before) / (times * FAN_OUT)

    def steps(self, times: int) -> float:
        """Microseconds of processor time for each item's step."""
        items = [{"source": "sales.csv", "first": 50 * number} for number in range(FAN_OUT)]
        before = self._cpu_seconds()
        begun: list[str] = []
        for _ in range(times):
            begun.append(_execute(self._client, self._workflow_id, items))
            self._wait()
        used = self._cpu_seconds() - before
        for execution_id in begun:
            _wait_for_completed(self._client, execution_id)
        return 1e6 * used / (times * FAN_OUT)

    def _wait(self) -> None:
        self._completed += FAN_OUT
        stack.wait_for_completed(self._plane, self._opened, self._completed, DEADLINE_SECONDS)

    def _cpu_seconds(self) -> float:
        return sum(cpu_seconds(process.pid) for process in self._plane.processes)


def chain(run: Run) -> float:
    """From the request to the last event at a WebSocket: of a step of a chain, as a multiple of a bare task."""
    steps = [{"agent_type": "noop", "type": "noop", "order": number} for number in range(1, CHAIN + 1)]
    pairs: list[tuple[float, float]] = []
    with stack.control_plane(run.folder) as plane:
        plane.start_server()
        plane.start_gateway()
        task = {"agent_id": stack.start_runners(plane, 1, CHAIN_SLOTS), "type": "noop", "payload": {"count": 50}}
        with plane.client() as client:
            execute = f"/v1/workflows/{_create(client, steps)}/execute"
        with Latency(plane) as latency:
            for _ in range(1 + run.count(CHAIN_PAIRS, 3)):
                a_step = latency.one(execute, {"parameters": {"count": 50}}, CHAIN) / CHAIN
                pairs.append((a_step, mean(latency.one("/v1/tasks", task) for _ in range(CHAIN))))
    a_step, bare = (1e3 * median(each) for each in zip(*pairs[1:], strict=True))
    ratios = [step / task for step, task in pairs[1:]]
    run.notes["latency"] = f"a step {a_step:.2f} ms, a bare task {bare:.2f} ms; by pair {_listed(ratios)}"
    return median(ratios)


def growth(run: Run, is_bytes: bool) -> float:
    """Seconds of an item, or bytes that the server wrote for it, late in an execution beside early in it."""
    with stack.control_plane(run.folder) as plane:
        server = plane.start_server()
        plane.start_gateway()
        stack.start_runners(plane, RUNNERS, SLOTS)
        spans: list[tuple[Sample, Sample]] = []
        with plane.client() as client:
            workflow_id = _create(client, [_each_item(PARALLEL)])
            _wait_for_completed(client, _execute(client, workflow_id, list(range(FAN_OUT))))
            for _ in range(run.count(EXECUTIONS)):
                with sampled(server.pid, SAMPLE_SECONDS) as samples:
                    execution_id = _execute(client, workflow_id, list(range(ITEMS)))
                    _wait_for_completed(client, execution_id)
                ends = _ends(plane, execution_id)
                spans.append((_span(samples, ends, *EARLY), _span(samples, ends, *LATE)))
    early, late = ([median(values) for values in zip(*side, strict=True)] for side in zip(*spans, strict=True))
    run.notes["an item"] = "; ".join(
        f"{name} {1e6 * each[0]:.0f} µs, CPU of the server {1e6 * each[1]:.0f} µs, {each[2]:,.0f} B written"
        for name, each in (("early", early), ("late", late))
    )
    return median(late[2] / early[2] if is_bytes else late[0] / early[0] for early, late in spans)


def _ends(plane: ControlPlane, execution_id: str) -> list[float]:
    """When the tasks of an execution were completed, in order, in seconds since the epoch."""
    with closing(sqlite3.connect(f"file:{plane.data_dir / 'ao.db'}?mode=ro", uri=True)) as store:
        asked = "SELECT completed_at FROM tasks WHERE execution_id = ? ORDER BY completed_at"
        ends = [completed_at / 1e6 for (completed_at,) in store.execute(asked, (execution_id,))]
    assert len(ends) == ITEMS, f"{len(ends)} of {ITEMS} items were completed"
    return ends


def _span(samples: Sequence[Sample], ends: Sequence[float], first: int, last: int) -> Sample:
    """What one of these items took: seconds, processor time and bytes."""
    begin, end = (_at(samples, ends[number - 1]) for number in (first, last))
    return Sample(*((after - before) / (last - first) for before, after in zip(begin, end, strict=True)))


def _at(samples: Sequence[Sample], moment: float) -> Sample:
    """The counters at a moment between two samples."""
    behind = min(max(1, bisect_left(samples, (moment,))), len(samples) - 1)
    before, after = samples[behind - 1], samples[behind]
    part = (moment - before.time) / (after.time - before.time)
    return Sample(*(low + part * (high - low) for low, high in zip(before, after, strict=True)))


def _each_item(parallel: int) -> dict[str, Any]:
    """A step that runs the no-op task for each of `parameters.items`."""
    return {
        "agent_type": "noop",
        "type": "noop",
        "for_each": "parameters.items",
        "max_parallel": parallel,
    }


def _create(client: httpx2.Client, steps: Sequence[dict[str, Any]]) -> str:
    """A new workflow's id."""
    return _posted(client, "/workflows", {"name": "measured", "steps": steps})


def _execute(client: httpx2.Client, workflow_id: str, items: Sequence[Any]) -> str:
    """A new execution's id."""
    return _posted(client, f"/workflows/{workflow_id}/execute", {"parameters": {"items": items}})


def _posted(client: httpx2.Client, path: str, body: dict[str, Any]) -> str:
    answer = client.post(path, json=body)
    assert answer.status_code == 201, answer.text
    return answer.json()["data"]["id"]


def _wait_for_completed(client: httpx2.Client, execution_id: str) -> None:
    answer = client.get(f"/executions/{execution_id}", params={"wait": 60}, timeout=DEADLINE_SECONDS)
    status = answer.json()["data"]["status"]
    assert status == "completed", f"the execution is {status}"


def _listed(ratios: Sequence[float]) -> str:
    return ", ".join(f"{each:.2f}" for each in ratios)


def _figure(name: str, unit: str, measure: Callable[[Run], float], must: float, aim: float) -> Figure:
    return Figure(
        name=name,
        unit=unit,
        measure=measure,
        baseline=constant(1.0),
        must=constant(must),
        aim=constant(aim),
        told=f"must {must}, aim {aim}",
        is_higher_better=False,
    )


FIGURES: Final = [
    _figure("1,000-way fan-out, CPU of a step", "x a bare task", fan_out, 1.3, 1.1),
    _figure("100-step chain, latency of a step", "x a bare task", chain, 1.3, 1.0),
    _figure("10,000th step, its time", "x the 100th", partial(growth, is_bytes=False), 1.2, 1.0),
    _figure("10,000th step, bytes written", "x the 100th", partial(growth, is_bytes=True), 1.2, 1.0),
]

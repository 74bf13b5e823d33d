"""Events to many WebSockets: messages per second, summed over the sockets."""

import time
from typing import Any, Final

from agent_orchestration.v1 import agents_pb2, agents_pb2_grpc, tasks_pb2, tasks_pb2_grpc
from benchmarks import stack
from benchmarks.figure import Figure, Run, constant
from benchmarks.processes import cpu_seconds, module
from tests.e2e.processes import ControlPlane

SOCKETS: Final = 100
BULK: Final = 1_000
BULKS: Final = 30
# Bulk creates on their way at the same time.
WINDOW: Final = 2
DEADLINE_SECONDS: Final = 60.0


def measure(run: Run) -> float:
    """Messages per second, from the first create to the last frame."""
    bulks = run.count(BULKS, 5)
    events = BULK * bulks
    with stack.control_plane(run.folder) as plane:
        halves = plane.start_server(), plane.start_gateway()
        arguments = (str(plane.port), plane.api_key, str(SOCKETS), str(events))
        with stack.channel(plane) as opened, module("benchmarks.sockets", *arguments, folder=run.folder) as listener:
            listener.line("listening")
            processes = (*halves, listener)
            before = [cpu_seconds(each.pid) for each in processes]
            begin = time.monotonic()
            _create(plane, opened, bulks)
            frames, ended = listener.line("heard ", DEADLINE_SECONDS).split()
            used = [cpu_seconds(each.pid) - then for each, then in zip(processes, before, strict=True)]
    assert int(frames) == SOCKETS * events, f"{frames} of {SOCKETS * events} messages came"
    server, gateway, heard = (f"{1e6 * each / events:.0f} µs" for each in used)
    run.notes["CPU an event"] = f"server {server}, gateway {gateway}, listener {heard}"
    return SOCKETS * events / (float(ended) - begin)


def _create(plane: ControlPlane, opened: Any, bulks: int) -> None:
    """Makes so many thousand tasks, each of them an event."""
    metadata = stack.credential(plane)
    asked = agents_pb2.CreateAgentRequest(name="nobody", type="worker")
    agent = agents_pb2_grpc.AgentServiceStub(opened).CreateAgent(asked, metadata=metadata).data
    each = tasks_pb2.CreateTaskRequest(agent_id=agent.id, type="noop", payload='{"count": 50}')
    bulk = tasks_pb2.CreateTasksRequest(tasks=[each] * BULK)
    service = tasks_pb2_grpc.TaskServiceStub(opened)
    sent: list[Any] = []
    for _ in range(bulks):
        sent.append(service.CreateTasks.future(bulk, metadata=metadata))
        if len(sent) >= WINDOW:
            sent.pop(0).result()
    for answer in sent:
        answer.result()


FIGURES: Final = [
    Figure(
        name=f"events to {SOCKETS} WebSockets",
        unit="messages/s",
        measure=measure,
        baseline=constant(100_000),
        must=constant(100_000),
        aim=constant(500_000),
        told="must 100,000, aim 500,000",
    ),
]

"""One task alone, from its create over REST to its `task_completed` at a WebSocket: p50, and p99 beside it.

The client is two blocking sockets, one kept alive for HTTP and one WebSocket, so that what is measured is not the
client. Both figures make their own tasks, one after the other, with a pause in between.
"""

import json
import re
import socket
import time
from functools import partial
from statistics import median
from typing import Any, Final, Self

from benchmarks import stack
from benchmarks.figure import Figure, Run, constant
from benchmarks.sockets import Socket
from tests.e2e.processes import ControlPlane

TASKS: Final = 400
WARM: Final = 30
PAUSE_SECONDS: Final = 0.003
DEADLINE_SECONDS: Final = 10.0
READ_BYTES: Final = 65_536
ID: Final = re.compile(rb'"id":"((?:task|execution)_\w+)"')
COMPLETED: Final = b'"type":"task_completed"'


def measure(run: Run, is_tail: bool) -> float:
    """Milliseconds of the median; or the 99th percentile as a multiple of it."""
    took = _one_by_one(run, run.count(TASKS, 200))
    middle, tail = median(took), took[len(took) * 99 // 100]
    run.notes["latency"] = f"p50 {1e3 * middle:.2f} ms, p90 {1e3 * took[len(took) * 9 // 10]:.2f} ms, "
    run.notes["latency"] += f"p99 {1e3 * tail:.2f} ms, of {len(took)} tasks"
    return tail / middle if is_tail else 1e3 * middle


def _one_by_one(run: Run, count: int) -> list[float]:
    """Seconds that each of so many tasks took, in order of size."""
    with stack.control_plane(run.folder) as plane:
        plane.start_server()
        plane.start_gateway()
        agent_id = stack.start_runners(plane, 1, 10)
        task = {"agent_id": agent_id, "type": "noop", "payload": {"source": "sales.csv", "count": 50}}
        with Latency(plane) as tasks:
            took: list[float] = []
            for _ in range(WARM + count):
                time.sleep(PAUSE_SECONDS)
                took.append(tasks.one("/v1/tasks", task))
    return sorted(took[WARM:])


class Latency:
    """A connection that asks for work and a WebSocket that hears of its end, for as long as the context lasts."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        self._requests = socket.create_connection(("127.0.0.1", plane.port))
        self._requests.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._events = Socket(plane.port, plane.api_key).connection
        for each in (self._requests, self._events):
            each.settimeout(DEADLINE_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._requests.close()
        self._events.close()

    def one(self, path: str, body: dict[str, Any], tasks: int = 1) -> float:
        """Seconds from a POST until the `task_completed` of so many tasks have come, the last about what was made."""
        request = self._request(path, body)
        begin = time.perf_counter()
        self._requests.sendall(request)
        heard = b""
        while heard.count(COMPLETED) < tasks or not heard.endswith(b"}"):
            heard += _received(self._events)
        took = time.perf_counter() - begin
        answer = b""
        while not answer.endswith(b"}"):
            answer += _received(self._requests)
        found = ID.search(answer)
        assert answer.startswith(b"HTTP/1.1 201") and found is not None, answer
        assert found[1] in heard[heard.rindex(COMPLETED) :], "the event of another"
        return took

    def _request(self, path: str, body: dict[str, Any]) -> bytes:
        text = json.dumps(body).encode()
        lines = (
            f"POST {path} HTTP/1.1",
            f"Host: 127.0.0.1:{self._plane.port}",
            f"Authorization: Bearer {self._plane.api_key}",
            "Content-Type: application/json",
            f"Content-Length: {len(text)}",
            "",
            "",
        )
        return "\r\n".join(lines).encode() + text


def _received(connection: socket.socket) -> bytes:
    some = connection.recv(READ_BYTES)
    assert some, "the gateway has closed the connection"
    return some


FIGURES: Final = [
    Figure(
        name="one task, REST create to its event at a WebSocket, p50",
        unit="ms",
        measure=partial(measure, is_tail=False),
        beside=("B2", "B3"),
        baseline=lambda b: 1e3 * (8 * b["B2"] + 3 * b["B3"]),
        must=lambda b: 1e3 * (8 * b["B2"] + 3 * b["B3"]),
        aim=lambda b: 1e3 * (7 * b["B2"] + 2 * b["B3"]),
        told="must 8 B2 + 3 B3, aim 7 B2 + 2 B3",
        is_higher_better=False,
    ),
    Figure(
        name="one task, p99",
        unit="x p50",
        measure=partial(measure, is_tail=True),
        baseline=constant(1.0),
        must=constant(2.0),
        aim=constant(2.0),
        told="under 2 x p50",
        is_higher_better=False,
    ),
]

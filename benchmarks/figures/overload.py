"""Creates at three times what the system takes: p99 of those that were accepted, in milliseconds.

What the system takes is measured first, by as many creates as 512 connections get through. Then creates are sent when
they are due, whatever the answers, at three times that rate. Each that is not accepted must be a 503 with Retry-After.
Memory must stay bounded, and five seconds later it must answer as before.
"""

import json
import threading
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Final

import psutil

from benchmarks import load, open_loop, stack
from benchmarks.figure import Figure, Run, constant
from benchmarks.open_loop import Outcome
from tests.e2e.processes import ControlPlane, Process

TIMES: Final = 3
SECONDS: Final = 60.0
QUICK_SECONDS: Final = 10.0
CONNECTIONS: Final = 2_000
CLOSED_CONNECTIONS: Final = 512
CLOSED_SECONDS: Final = 2.0
# What is asked before and after: so little that nothing waits.
CALM_RATE: Final = 50.0
CALM_SECONDS: Final = 2.0
CALM_CONNECTIONS: Final = 20
PAUSE_SECONDS: Final = 5.0
SAMPLE_SECONDS: Final = 0.25
# Bytes that server or gateway may grow by: seen are 10 to 30 MiB.
MOST_GROWTH: Final = 200 * 2**20
# What a median of 100 requests on a shared machine may differ by.
AS_BEFORE: Final = 3.0


def measure(run: Run) -> float:
    """Milliseconds."""
    with stack.control_plane(run.folder) as plane:
        halves = {"server": plane.start_server(), "gateway": plane.start_gateway()}
        with plane.client() as client:
            agent_id = client.post("/agents", json={"name": "idle", "type": "idle"}).json()["data"]["id"]
        capacity = _capacity(plane, agent_id)
        before = _offer(run, plane, agent_id, CALM_RATE, CALM_SECONDS, CALM_CONNECTIONS)
        with _growth(halves) as growth:
            seconds = SECONDS if run.scale >= 1.0 else QUICK_SECONDS
            outcome = _offer(run, plane, agent_id, TIMES * capacity, seconds, CONNECTIONS)
        time.sleep(PAUSE_SECONDS)
        after = _offer(run, plane, agent_id, CALM_RATE, CALM_SECONDS, CALM_CONNECTIONS)
    _check(outcome)
    assert max(growth.values()) <= MOST_GROWTH, f"grown by {growth} bytes"
    assert after.statuses.keys() == {"201"}, after.statuses
    assert after.p50 <= AS_BEFORE * before.p50, f"five seconds later {_told(after)}; before: {_told(before)}"
    accepted = outcome.statuses["201"]
    run.notes["offered"] = (
        f"{TIMES} x {capacity:,.0f}/s for {seconds:.0f} s: {accepted / seconds:,.0f}/s accepted, "
        f"{(outcome.answers - accepted) / seconds:,.0f}/s refused, "
        f"{outcome.unsent / seconds:,.0f}/s without a free connection of {CONNECTIONS:,}"
    )
    run.notes["accepted"] = ", ".join((_told(outcome), f"worst {1e3 * outcome.worst:.0f} ms"))
    run.notes["generator"] = f"{100 * outcome.cpu:.0f} % of a processor, at most {1e3 * outcome.late:.0f} ms late"
    run.notes["memory"] = ", ".join(f"{name} +{each / 2**20:.0f} MiB" for name, each in growth.items())
    run.notes["five seconds later"] = f"{_told(after)}; before: {_told(before)}"
    return 1e3 * outcome.p99


def _capacity(plane: ControlPlane, agent_id: str) -> float:
    """Creates per second that are accepted while nothing is refused."""
    body = json.dumps({"agent_id": agent_id, "type": "noop", "payload": {"source": "sales.csv", "count": 50}}).encode()
    headers = {"Authorization": f"Bearer {plane.api_key}"}
    url = f"{plane.rest_url}/tasks"
    return load.post(url, body, connections=CLOSED_CONNECTIONS, seconds=CLOSED_SECONDS, headers=headers).a_second


def _offer(run: Run, plane: ControlPlane, agent_id: str, rate: float, seconds: float, connections: int) -> Outcome:
    return open_loop.offer(run.folder, plane.port, plane.api_key, agent_id, rate, seconds, connections)


@contextmanager
def _growth(processes: Mapping[str, Process]) -> Generator[dict[str, int], None, None]:
    """Bytes that each process has grown by at most, while the context lasts."""
    looked_at = {name: psutil.Process(process.pid) for name, process in processes.items()}
    begin = {name: process.memory_info().rss for name, process in looked_at.items()}
    most = dict.fromkeys(looked_at, 0)
    over = threading.Event()

    def look() -> None:
        while not over.wait(SAMPLE_SECONDS):
            for name, process in looked_at.items():
                most[name] = max(most[name], process.memory_info().rss - begin[name])

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield most
    finally:
        over.set()
        thread.join()


def _check(outcome: Outcome) -> None:
    assert outcome.statuses.keys() <= {"201", "503"}, outcome.statuses
    assert not outcome.unasked, f"{outcome.unasked} refusals came without Retry-After"
    assert not outcome.unanswered, f"{outcome.unanswered} requests were not answered"


def _told(outcome: Outcome) -> str:
    return f"p50 {1e3 * outcome.p50:.1f} ms, p99 {1e3 * outcome.p99:.1f} ms"


FIGURES: Final = [
    Figure(
        name="creates at three times what it takes, accepted p99",
        unit="ms",
        measure=measure,
        baseline=constant(1_000.0),
        must=constant(1_000.0),
        aim=constant(1_000.0),
        told="under 1 s; the rest 503 with Retry-After",
        is_higher_better=False,
        is_long=True,
    ),
]

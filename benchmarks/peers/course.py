"""The course that every peer runs, and ours too: single tasks first, then 32 connections without a pause."""

import http.client
import json
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks import load
from benchmarks.figure import Run
from benchmarks.peers.apps.stamps import FIRST_OF_LOAD, Stamps
from benchmarks.peers.catalog import Peer
from benchmarks.peers.environment import APPS, interpreter, variables
from benchmarks.processes import command, cpu_seconds_of_all
from tests.e2e.processes import Process, wait_until

CONNECTIONS: Final = 32
SINGLES: Final = 200
SETTLE_SECONDS: Final = 0.3
START_SECONDS: Final = 30.0
DRAIN_SECONDS: Final = 60.0
POLL_SECONDS: Final = 0.0002


@dataclass(frozen=True, slots=True)
class Course:
    """How long it is: seconds of load, and seconds of single tasks before it (at most 200 of them)."""

    load_seconds: float = 3.0
    single_seconds: float = 2.0

    @classmethod
    def short(cls, scale: float) -> "Course":
        """For throughput alone: single tasks only warm up."""
        return cls(load_seconds=max(1.0, 2.0 * scale), single_seconds=0.3)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a course."""

    # Tasks per second, from the first request of the load to its last execution.
    a_second: float
    # Microseconds of CPU that a task of the load took in all processes of the entrant but a PostgreSQL server's.
    cpu: float
    # Milliseconds from the request of a single task to its execution.
    p50: float
    p99: float


@dataclass(frozen=True, slots=True)
class Entrant:
    """Something that takes tasks over HTTP."""

    url: str
    stamps: Stamps
    # Waits until so many tasks of the load are done; returns when the last of them was, by the monotonic clock.
    done: Callable[[int], float]
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    # What stands in each body besides the payload.
    fields: Mapping[str, str] = field(default_factory=dict[str, str])

    def body(self, payload: Mapping[str, int]) -> bytes:
        """The body of a request."""
        return json.dumps({"type": "noop", **self.fields, "payload": payload}).encode()


def measure(entrant: Entrant, course: Course) -> Outcome:
    """Measures whatever is there, once its workers work."""
    _single(entrant, 0, START_SECONDS)
    time.sleep(SETTLE_SECONDS)
    took: list[float] = []
    begin = time.monotonic()
    while len(took) < SINGLES and time.monotonic() < begin + course.single_seconds:
        took.append(_single(entrant, 1 + len(took), START_SECONDS))
    used, begin = cpu_seconds_of_all(), time.monotonic()
    loaded = load.post(
        entrant.url, entrant.body({}), connections=CONNECTIONS, seconds=course.load_seconds, headers=entrant.headers
    )
    accepted = loaded.requests - loaded.refused
    end = entrant.done(accepted)
    took.sort()
    return Outcome(
        a_second=accepted / (end - begin),
        cpu=1e6 * (cpu_seconds_of_all() - used) / accepted,
        p50=1e3 * statistics.median(took),
        p99=1e3 * took[len(took) * 99 // 100],
    )


def tasks_a_second(run: Run, peer: Peer) -> float:
    """A peer as a baseline."""
    return run_peer(peer, run.folder, Course.short(run.scale)).a_second


def run_peer(peer: Peer, folder: Path, course: Course) -> Outcome:
    """Starts a peer on a folder of its own and measures it. Unavailable where its service is missing."""
    python = str(interpreter())
    stamps = Stamps.create(folder / "stamps")
    with ExitStack() as stack:
        environment = variables(STAMPS=str(folder / "stamps"), **stack.enter_context(peer.service(folder)))

        def start(part: str, *words: str) -> Process:
            return stack.enter_context(command([python, *words], folder=folder, name=part, environment=environment))

        if peer.setup is not None:
            assert start("setup", *peer.setup).end(START_SECONDS) == 0
        if peer.worker is not None:
            start("worker", *peer.worker)
        front = start("front", str(APPS / "front.py"), peer.app)
        url = f"http://127.0.0.1:{front.line('port ', START_SECONDS)}/tasks"
        return measure(Entrant(url, stamps, lambda count: _ran(stamps, count)), course)


def _ran(stamps: Stamps, count: int) -> float:
    wait_until(lambda: len(stamps.of_load(count)) >= count, DRAIN_SECONDS, f"{count} tasks have not run")
    return stamps.of_load(count)[count - 1] / 1e9


def _single(entrant: Entrant, number: int, deadline: float) -> float:
    """Seconds from the request to the execution of one task."""
    assert number < FIRST_OF_LOAD
    host, path = entrant.url.removeprefix("http://").split("/", 1)
    connection = http.client.HTTPConnection(host, timeout=deadline)
    connection.connect()
    begin = time.monotonic_ns()
    headers = {"Content-Type": load.MIME, **entrant.headers}
    connection.request("POST", f"/{path}", entrant.body({"number": number}), headers)
    with connection.getresponse() as response:
        assert response.status == 201, response.read()
    end = time.monotonic() + deadline
    while not entrant.stamps.times[number]:
        assert time.monotonic() < end, "a single task has not run"
        time.sleep(POLL_SECONDS)
    connection.close()
    return (entrant.stamps.times[number] - begin) / 1e9

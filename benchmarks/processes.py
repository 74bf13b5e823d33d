"""Parts of a measurement that run as processes of their own."""

import os
import signal
import sys
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from tests.e2e.processes import Process

ROOT = Path(__file__).resolve().parent.parent
STOP_SECONDS = 12.0


class Sample(NamedTuple):
    """What a process had used at a time, in seconds since the epoch: seconds of processor, bytes written to files."""

    time: float
    cpu: float
    bytes: float


@contextmanager
def module(name: str, *arguments: str, folder: Path) -> Generator[Process, None, None]:
    """`python -m NAME` for as long as the context lasts."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("AGENT_ORCHESTRATION_")}
    environment = inherited | {"PYTHONPATH": str(ROOT)}
    with command(
        [sys.executable, "-m", name, *arguments], folder=folder, name=name, environment=environment
    ) as process:
        yield process


@contextmanager
def command(
    words: Sequence[str], *, folder: Path, name: str, environment: Mapping[str, str]
) -> Generator[Process, None, None]:
    """Any program for as long as the context lasts; then it is killed, and whatever it started."""
    process = Process(words, folder=folder, environment=environment, name=name)
    try:
        yield process
    finally:
        family = psutil.Process(process.pid).children(recursive=True) if process.is_running else []
        process.signal(signal.SIGKILL)
        # They may hold its pipe open.
        for each in family:
            with suppress(psutil.NoSuchProcess):
                each.kill()
        process.end(STOP_SECONDS)


def cpu_seconds_of_all() -> float:
    """User and system time so far of the processes that run below this one."""
    return sum(cpu_seconds(each.pid) for each in psutil.Process().children(recursive=True))


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


@contextmanager
def sampled(pid: int, pause_seconds: float) -> Generator[list[Sample], None, None]:
    """Samples of a process for as long as the context lasts, the last of them at its end."""
    samples = [_sample(pid)]
    done = threading.Event()

    def look() -> None:
        while not done.wait(pause_seconds):
            samples.append(_sample(pid))
        samples.append(_sample(pid))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        done.set()
        thread.join()


def _sample(pid: int) -> Sample:
    counters: Any = psutil.Process(pid).io_counters()
    return Sample(time.time(), cpu_seconds(pid), counters.write_chars)

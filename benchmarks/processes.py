"""Parts of a measurement that run as processes of their own."""

import os
import signal
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from tests.e2e.processes import Process

ROOT = Path(__file__).resolve().parent.parent
STOP_SECONDS = 12.0


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

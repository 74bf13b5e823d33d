"""Parts of a measurement that run as processes of their own."""

import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.e2e.processes import Process

ROOT = Path(__file__).resolve().parent.parent
STOP_SECONDS = 12.0


@contextmanager
def module(name: str, *arguments: str, folder: Path) -> Generator[Process, None, None]:
    """`python -m NAME` for as long as the context lasts."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("AGENT_ORCHESTRATION_")}
    process = Process(
        [sys.executable, "-m", name, *arguments],
        folder=folder,
        environment=inherited | {"PYTHONPATH": str(ROOT)},
        name=name,
    )
    try:
        yield process
    finally:
        if process.is_running:
            process.kill()
        else:
            process.end(STOP_SECONDS)


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system

"""Idle agents, a connection each: what a stream costs the server in memory beside a bare stream, as a ratio."""

import sys
import time
from pathlib import Path
from typing import Final

import psutil

from benchmarks import stack
from benchmarks.figure import Figure, Run, constant
from benchmarks.idle_streams import HEARTBEAT_SECONDS
from benchmarks.processes import cpu_seconds, module
from tests.e2e.processes import Process

AGENTS: Final = 1_000
STREAMS: Final = "benchmarks.idle_streams"
SETTLED_SECONDS: Final = 5.0
CONNECTED_SECONDS: Final = 60.0


def measure(run: Run) -> float:
    """Bytes of anonymous memory per stream of the server, over those of a bare grpc.aio server in the same repeat."""
    agents = run.count(AGENTS, 200)
    with module(STREAMS, "bare", folder=run.folder) as server:
        address = f"127.0.0.1:{server.line('port ')}"
        bare = _growth(run, server, address, "bare", agents)
    with stack.control_plane(run.folder) as plane:
        process = plane.start_server()
        ours = _growth(run, process, plane.grpc_address, plane.api_key, agents)
    run.notes["memory a stream"] = f"{ours / 1024:.1f} KiB, bare {bare / 1024:.1f} KiB"
    return ours / bare


def _growth(run: Run, server: Process, address: str, key: str, agents: int) -> float:
    """Bytes per stream."""
    time.sleep(1.0)
    before = _memory(server.pid)
    with module(STREAMS, "agents", address, key, str(agents), folder=run.folder) as clients:
        clients.line("connected", CONNECTED_SECONDS)
        used = cpu_seconds(server.pid)
        seconds = max(HEARTBEAT_SECONDS, SETTLED_SECONDS * run.scale)
        time.sleep(seconds)
        beats = agents * seconds / HEARTBEAT_SECONDS
        kind = "CPU a heartbeat, bare" if key == "bare" else "CPU a heartbeat"
        run.notes[kind] = f"{1e6 * (cpu_seconds(server.pid) - used) / beats:.0f} µs"
        return (_memory(server.pid) - before) / agents


def _memory(pid: int) -> int:
    """Bytes that are the process's own: pages of files, which others share, are left out."""
    if not sys.platform.startswith("linux"):
        return psutil.Process(pid).memory_full_info().uss
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Anonymous:"):
            return 1024 * int(line.split()[1])
    raise AssertionError("smaps_rollup without Anonymous")


FIGURES: Final = [
    Figure(
        name=f"{AGENTS:,} idle agents, a connection each",
        unit="x a bare stream",
        measure=measure,
        baseline=constant(1.0),
        must=constant(1.2),
        aim=constant(1.1),
        told="must 1.2 x, aim 1.1 x the memory of a bare stream",
        is_higher_better=False,
        is_long=True,
    ),
]

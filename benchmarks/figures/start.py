"""`ao dev` from its exec to the first request that is answered 200: seconds."""

import atexit
import contextlib
import http.client
import shutil
import socket
import sqlite3
import tempfile
import time
from functools import cache, partial
from pathlib import Path
from typing import Final

import psutil

from benchmarks import stack
from benchmarks.figure import Figure, Run, constant
from benchmarks.processes import cpu_seconds
from tests.e2e.processes import ControlPlane

TASKS: Final = 1_000_000
# Those that ran when the server before this one ended.
RUNNING: Final = 1_000
POLL_SECONDS: Final = 0.002
DEADLINE_SECONDS: Final = 60.0
NUMBERS: Final = "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < :count) "
FILLING: Final = (
    "INSERT INTO tasks (project_id, id, agent_id, type, priority, created_at, status, attempt, deliveries, instance_id,"
    " progress, log_lines, started_at, completed_at, queue, agent_type, failures) "
    "SELECT :project, printf('task_%012d', i), 'agent_' || i % 50, 'noop', i % 4, :now - 1000 * (:count - i),"
    " CASE WHEN i < :running THEN 'running' WHEN i % 100 < 96 THEN 'completed' ELSE 'pending' END,"
    " 1, 1, 'instance_' || i % 50, 0, 0, :now, CASE WHEN i >= :running AND i % 100 < 96 THEN :now END,"
    " 'agent_' || i % 50, 'worker', 0 FROM n",
    "INSERT INTO payloads (project_id, task_id, payload) SELECT :project, printf('task_%012d', i), '{}' FROM n",
    "INSERT INTO event_portions (project_id, last, timestamp, events) "
    "SELECT :project, (SELECT last FROM feeds) + 1 + i, :now - 1000 * (:count - i), json_array(json_array(:project,"
    " (SELECT last FROM feeds) + 1 + i, 'task_created', :now - 1000 * (:count - i), '{}', NULL,"
    " printf('task_%012d', i))) FROM n",
    "INSERT INTO task_counts (project_id, agent_id, agent_type, type, priority, status, tasks, duration) "
    "SELECT project_id, agent_id, agent_type, type, priority, status, count(*), 0 FROM tasks GROUP BY 1, 2, 3, 4, 5, 6",
    "UPDATE feeds SET last = last + :count",
)


def measure(run: Run, tasks: int) -> float:
    """Seconds. Without tasks the folder is new, so that the first start makes the schema and the keys as well."""
    folder = _filled(run.count(tasks)) if tasks else run.folder
    with stack.control_plane(folder) as plane:
        seconds, cpu = _start(plane)
    run.notes[f"CPU until then, {tasks:,} tasks"] = f"{cpu:.2f} s"
    return seconds


def _start(plane: ControlPlane) -> tuple[float, float]:
    """Seconds until the first 200, and of CPU of all three processes."""
    plane.port, plane.grpc_port = _free_port(), _free_port()
    begin = time.perf_counter()
    process = plane.ao("dev", "--port", str(plane.port), "--grpc-port", str(plane.grpc_port))
    while not _is_ready(plane.port):
        if time.perf_counter() - begin > DEADLINE_SECONDS or not process.is_running:
            raise AssertionError(f"`ao dev` does not answer: {process.errors}")
        time.sleep(POLL_SECONDS)
    seconds = time.perf_counter() - begin
    halves = psutil.Process(process.pid).children()
    cpu = sum(cpu_seconds(pid) for pid in (process.pid, *(half.pid for half in halves)))
    process.stop()
    psutil.wait_procs(halves, DEADLINE_SECONDS)
    return seconds, cpu


def _is_ready(port: int) -> bool:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_SECONDS)) as connection:
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False


def _free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return bound.getsockname()[1]


@cache
def _filled(tasks: int) -> Path:
    """A folder whose store holds so many tasks, made once for all repeats."""
    folder = Path(tempfile.mkdtemp(prefix="ao-bench-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with stack.control_plane(folder) as plane:
        plane.start_server().stop()
        with contextlib.closing(sqlite3.connect(plane.data_dir / "ao.db")) as connection, connection:
            (project,) = connection.execute("SELECT project_id FROM feeds").fetchone()
            values = {"project": project, "count": tasks, "running": RUNNING, "now": time.time_ns() // 1000}
            for statement in FILLING:
                takes_numbers = statement.endswith(" FROM n")
                connection.execute(NUMBERS * takes_numbers + statement, values)
    return folder


FIGURES: Final = [
    Figure(
        name=f"start of ao dev, {told}",
        unit="s",
        measure=partial(measure, tasks=tasks),
        baseline=constant(1.0),
        must=constant(2.5),
        aim=constant(1.2),
        told="must 2.5 s, aim 1.2 s",
        is_higher_better=False,
    )
    for told, tasks in (("empty", 0), (f"{TASKS:,} tasks", TASKS))
]

"""The peers: how each is started, with the settings that its users run, and what it may lose with them."""

from dataclasses import dataclass
from typing import Final

from benchmarks.peers.services import Service, postgres, redis, sqlite


@dataclass(frozen=True, slots=True)
class Peer:
    """A task queue. Arguments are for `python`."""

    name: str
    # Its file in `apps`: the front enqueues by it, the workers load it.
    app: str
    service: Service
    settings: str
    loss: str
    # None: the process that serves HTTP works too.
    worker: tuple[str, ...] | None = None
    # Run once before anything else.
    setup: tuple[str, ...] | None = None


EVERYSEC: Final = "a power cut: up to 1 s of tasks already answered"

CELERY: Final = Peer(
    name="Celery",
    app="celery_app",
    service=redis,
    worker=("-m", "celery", "-A", "celery_app", "worker", "-c", "4", "--loglevel=warning"),
    settings="Redis, prefork -c 4, prefetch 4, acknowledged before it runs, no results",
    loss=f"a worker killed: the tasks it runs; {EVERYSEC}",
)
DRAMATIQ: Final = Peer(
    name="Dramatiq",
    app="dramatiq_app",
    service=redis,
    worker=("-m", "dramatiq", "dramatiq_app", "--processes", "2", "--threads", "8"),
    settings="Redis, 2 processes x 8 threads, default middleware, acknowledged after it ran, no results",
    loss=EVERYSEC,
)
TASKIQ: Final = Peer(
    name="Taskiq",
    app="taskiq_app",
    service=redis,
    worker=("-m", "taskiq", "worker", "taskiq_app:broker", "--workers", "2", "--log-level", "WARNING"),
    settings="Redis stream, 2 processes x 100 coroutines, acknowledged after it ran, no results",
    loss=EVERYSEC,
)
PROCRASTINATE: Final = Peer(
    name="procrastinate",
    app="procrastinate_app",
    service=postgres,
    setup=("-m", "procrastinate", "-a", "procrastinate_app.app", "schema", "--apply"),
    worker=("-m", "procrastinate", "-a", "procrastinate_app.app", "--log-level=warning", "worker", "-c", "10"),
    settings="PostgreSQL, 1 process x 10 coroutines, LISTEN/NOTIFY beside a poll every 5 s, jobs kept",
    loss="none: every step is a commit; jobs of a killed worker wait until a task of the user's looks for stalled ones",
)
DBOS_SQLITE: Final = Peer(
    name="DBOS (SQLite)",
    app="dbos_app",
    service=sqlite,
    settings="one process, its queue polled every 0.1 s (default 1 s)",
    loss="none: every step is a commit, in SQLite's default journal with synchronous=FULL",
)
DBOS_POSTGRES: Final = Peer(
    name="DBOS (PostgreSQL)",
    app="dbos_app",
    service=postgres,
    settings="one process, its queue polled every 0.1 s (default 1 s)",
    loss="none: every step is a commit",
)

PEERS: Final = (CELERY, DRAMATIQ, TASKIQ, PROCRASTINATE, DBOS_SQLITE, DBOS_POSTGRES)

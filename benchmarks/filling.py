"""A store that holds many tasks, made without the server: rows and counters as it would have left them."""

import atexit
import json
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection

from ao_server.engine import projects
from ao_server.engine.ids import Ids
from ao_server.store import rows, schema, tables
from ao_server.store.database import Database

PROJECT: Final = projects.DEFAULT
AGENTS: Final = 200
AGENT_TYPES: Final = 10
TYPES: Final = 20
DAYS: Final = 30
DAY: Final = 86_400_000_000
# A value of `labels` for one task in so many.
LABELS: Final = {("env", "prod"): 10, ("env", "test"): 100, ("team", "red"): 1_000, ("order", "a"): 100_000}
AT_ONCE: Final = 10_000
AGENT_IDS: Final = [f"agent_{number:026}" for number in range(AGENTS)]


def agent_type(agent: int) -> str:
    """The type of an agent by its number."""
    return f"agent_type_{agent % AGENT_TYPES}"


@cache
def filled(count: int) -> tuple[Path, int]:
    """An SQLite file with so many tasks and the time that it ends at, made once for all figures: it is copied by those
    who write to it.
    """
    folder = Path(tempfile.mkdtemp(prefix="ao-bench-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    now = time.time_ns() // 1000
    fill(Database(f"sqlite:///{folder / 'ao.db'}"), count, now)
    return folder / "ao.db", now


def fill(database: Database, count: int, now: int) -> None:
    """Makes the schema and so many tasks, spread evenly over the days before `now` (microseconds) and at random over
    everything that lists are narrowed by; with payloads, and results where completed.
    """
    connection = database.connect_writer()
    try:
        schema.prepare(connection, database.path)
        with connection.begin():
            _fill(connection, count, now)
        if not database.is_sqlite:
            with connection.begin():
                connection.exec_driver_sql("ANALYZE")
    finally:
        connection.close()
        database.writing.dispose()


def _fill(connection: Connection, count: int, now: int) -> None:
    counts: Counter[tuple[Any, ...]] = Counter()
    made = _tasks(count, now)
    while some := list(islice(made, AT_ONCE)):
        _insert(connection, rows.Task, [rows.values_of(task) for task in some])
        _insert(connection, rows.Payload, [(PROJECT, task.id, '{"source": "sales.csv"}') for task in some])
        done = [task.id for task in some if task.status == "completed"]
        _insert(connection, rows.Result, [(PROJECT, each, 11, '{"rows": 50}') for each in done])
        labels = [(task.id, json.loads(task.labels)) for task in some if task.labels]
        _insert(
            connection,
            rows.TaskLabel,
            [(PROJECT, key, value, each) for each, own in labels for key, value in own.items()],
        )
        counts.update((task.agent_id, task.agent_type, task.type, task.priority, task.status) for task in some)
    _insert(connection, rows.TaskCount, [(PROJECT, *cell, number, 0) for cell, number in sorted(counts.items())])


def _tasks(count: int, now: int) -> Iterator[rows.Task]:
    pick = random.Random(count)
    ids = Ids(pick.getrandbits)
    for number in range(count):
        created = now - DAYS * DAY + DAYS * DAY * number // count
        identifier, created_at = ids.new("task", created)
        agent = pick.randrange(AGENTS)
        status = pick.choice(tables.TASK_STATUSES)
        is_final = status not in ("pending", "running")
        own = {key: value for (key, value), one_in in reversed(LABELS.items()) if not pick.randrange(one_in)}
        yield rows.Task(
            project_id=PROJECT,
            id=identifier,
            agent_id=AGENT_IDS[agent],
            agent_type=agent_type(agent),
            type=f"type_{pick.randrange(TYPES)}",
            priority=pick.randrange(4),
            created_at=created_at,
            status=status,
            queue=AGENT_IDS[agent],
            attempt=0 if status == "pending" else 1,
            instance_id=None if status == "pending" else "instance",
            started_at=None if status == "pending" else created_at + 1_000_000,
            completed_at=created_at + 2_000_000 if is_final else None,
            error_code="task_error" if status == "failed" else None,
            labels=json.dumps(own) if own else None,
            # Nothing of this is to be given out while lists are measured.
            ready_at=now + 10 * DAYS * DAY if status == "pending" else None,
        )


def _insert(connection: Connection, row: type[Any], values: Sequence[tuple[Any, ...]]) -> None:
    if not values:
        return
    columns = [column.name for column in rows.TABLES[row].columns]
    names = ", ".join(columns)
    driver: Any = connection.connection.driver_connection
    if connection.dialect.name == "postgresql":
        with driver.cursor() as cursor, cursor.copy(f"COPY {rows.TABLES[row].name} ({names}) FROM STDIN") as copy:
            for each in values:
                copy.write_row(each)
        return
    table = rows.TABLES[row].name
    driver.executemany(f"INSERT INTO {table} ({names}) VALUES ({', '.join('?' * len(columns))})", values)

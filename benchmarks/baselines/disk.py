"""B3 and B3r: what the disk under the store does, by sqlite3 alone in WAL with synchronous=FULL.

A row is as wide as a task's: 27 columns with 300 B in all, behind a text key, and no index beside it.
"""

import statistics
import time
from contextlib import closing
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from ao_server.store import sqlite_library
from benchmarks.figure import Run

COMMITS: Final = 300
ROWS: Final = 60_000
BATCH: Final = 1_000
COLUMNS: Final = 27
INSERT: Final = f"INSERT INTO plain VALUES ({', '.join('?' * COLUMNS)})"


def one_row_commit(run: Run) -> float:
    """B3: median seconds of a transaction that inserts one row."""
    took: list[float] = []
    with closing(_table(run.folder / "commits.db")) as connection:
        for number in range(run.count(COMMITS, 50)):
            begin = time.perf_counter()
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(INSERT, _row(number))
            connection.execute("COMMIT")
            took.append(time.perf_counter() - begin)
    return statistics.median(took)


def rows_a_second(run: Run) -> float:
    """B3r: rows per second by executemany, 1,000 in each transaction."""
    rows = [_row(number) for number in range(run.count(ROWS, 20_000))]
    with closing(_table(run.folder / "rows.db")) as connection:
        begin = time.perf_counter()
        for start in range(0, len(rows), BATCH):
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(INSERT, rows[start : start + BATCH])
            connection.execute("COMMIT")
        return len(rows) / (time.perf_counter() - begin)


def _row(number: int) -> tuple[str, ...]:
    return (f"task_{number:026d}", *(f"{number + column:010d}" for column in range(1, COLUMNS)))


def _table(path: Path) -> Any:
    sqlite_library.install()
    connection = import_module("sqlite3").connect(str(path), isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    columns = ", ".join(f"column_{number} TEXT" for number in range(1, COLUMNS))
    connection.execute(f"CREATE TABLE plain (id TEXT PRIMARY KEY, {columns})")
    return connection

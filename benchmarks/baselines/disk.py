"""B3 and B3r: what the disk under the store does, by sqlite3 alone in WAL with synchronous=FULL.

A row is what a task is: a text key, 25 columns beside it, and a body of 300 B as in B1 and B2; no index. Rows of three
columns are twice as fast. It is measured in a process of its own, by the interpreter's own sqlite3, which the server
replaces by a newer one.
"""

import sqlite3
import statistics
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Final

from benchmarks.figure import Run
from benchmarks.processes import module

COMMITS: Final = 300
ROWS: Final = 60_000
BATCH: Final = 1_000
BODY: Final = "x" * 300
COLUMNS: Final = 27
INSERT: Final = f"INSERT INTO plain VALUES ({', '.join('?' * COLUMNS)})"


def one_row_commit(run: Run) -> float:
    """B3: median seconds of a transaction that inserts one row."""
    return _alone(run, "commits", run.count(COMMITS, 50))


def rows_a_second(run: Run) -> float:
    """B3r: rows per second by executemany, 1,000 in each transaction."""
    return _alone(run, "rows", run.count(ROWS, 20_000))


def _alone(run: Run, what: str, count: int) -> float:
    with module(__name__, what, str(count), folder=run.folder) as process:
        return float(process.line("measured "))


def _commits(count: int) -> float:
    took: list[float] = []
    with closing(_table(Path("commits.db"))) as connection:
        for number in range(count):
            begin = time.perf_counter()
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(INSERT, _row(number))
            connection.execute("COMMIT")
            took.append(time.perf_counter() - begin)
    return statistics.median(took)


def _rows(count: int) -> float:
    rows = [_row(number) for number in range(count)]
    with closing(_table(Path("rows.db"))) as connection:
        begin = time.perf_counter()
        for start in range(0, len(rows), BATCH):
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(INSERT, rows[start : start + BATCH])
            connection.execute("COMMIT")
        return len(rows) / (time.perf_counter() - begin)


def _row(number: int) -> tuple[str, ...]:
    return (f"task_{number:026d}", *(f"{number + column}" for column in range(2, COLUMNS)), BODY)


def _table(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    columns = ", ".join(f"column_{number} TEXT" for number in range(1, COLUMNS))
    connection.execute(f"CREATE TABLE plain (id TEXT PRIMARY KEY, {columns})")
    return connection


if __name__ == "__main__":
    measure = {"commits": _commits, "rows": _rows}[sys.argv[1]]
    print(f"measured {measure(int(sys.argv[2]))}", flush=True)

"""The database behind the store, SQLite or PostgreSQL: connections, and the few differences between the two.

SQLite: one connection writes and checkpoints, readers are opened read-only, WAL with `synchronous=FULL`, so that a
commit that was answered survives a power cut. PostgreSQL: its defaults give the same.
"""

import json
import os
import re
import shutil
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy
from sqlalchemy import Connection, Dialect, Engine, create_engine, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import QueuePool

from ao_server.errors import InUse
from ao_server.store.driver import Connections, PostgresConnection, SqliteConnection

READERS = 4
_HINT = re.compile(r" INDEXED BY \w+")
# How long the writer waits for somebody else's write transaction before it says that the store is away.
LOCK_WAIT_SECONDS = 5.0
# Free pages that an SQLite file keeps, and those that are given back in one transaction; a page has 4 KiB.
KEPT_PAGES = 4_096
PAGES_AT_ONCE = 500
ADVISORY_LOCK_WAIT_SECONDS = 3.0
# What is written finds its rows by an index: plans are kept from when tables were small, and are to be right when they
# are large.
_PLANNING = ("jit", "enable_seqscan", "enable_hashjoin", "enable_mergejoin")
# Events are compressed, at a small part of the cost. Not every build of PostgreSQL has it.
_COMPRESSION = """
SELECT set_config('default_toast_compression', 'lz4', false) FROM pg_settings
WHERE name = 'default_toast_compression' AND 'lz4' = ANY(enumvals)
"""
# Two servers on one PostgreSQL database would each believe that they alone hold the leases.
_ADVISORY_LOCK = 0x616F_7365_7276


class Database:
    """Engines for the one writer and for the readers of one database, and `direct` connections for reads that are asked
    for all the time.
    """

    def __init__(self, url: str) -> None:
        """`url`: `sqlite:///PATH` or `postgresql://...`. ValueError when it is neither."""
        parsed = sqlalchemy.make_url(url)
        backend = parsed.get_backend_name()
        if backend == "sqlite":
            if not parsed.database:
                raise ValueError("an SQLite URL needs a file: sqlite:///path/to/ao.db")
            self.path: Path | None = Path(parsed.database).absolute()
            uri = f"file:{quote(str(self.path))}?mode=ro"
            self.writing, self.reading = _sqlite_engines(self.path, uri)
            self.direct = Connections(lambda: SqliteConnection.open(uri), READERS)
        elif backend == "postgresql":
            self.path = None
            psycopg_url = parsed.set(drivername="postgresql+psycopg")
            self.writing = create_engine(
                psycopg_url, pool_size=1, max_overflow=1, paramstyle="format", hide_parameters=True
            )
            self.reading = create_async_engine(
                psycopg_url, pool_size=READERS, pool_pre_ping=True, max_overflow=0, hide_parameters=True
            )
            plain_url = parsed.set(drivername="postgresql").render_as_string(hide_password=False)
            self.direct = Connections(lambda: PostgresConnection.open(plain_url), READERS)
        else:
            raise ValueError(f"{backend} is not supported: use sqlite:///PATH or postgresql://...")

    @property
    def is_sqlite(self) -> bool:
        """Whether the store is an embedded file."""
        return self.path is not None

    @property
    def dialect(self) -> Dialect:
        """The dialect that hot statements are compiled for."""
        return self.writing.dialect

    def connect_writer(self) -> Connection:
        """The connection of the one writer. InUse when another server holds this database."""
        connection = self.writing.connect()
        if not self.is_sqlite:
            # PostgreSQL may need a moment to notice that the last holder was killed.
            deadline = time.monotonic() + ADVISORY_LOCK_WAIT_SECONDS
            while not _try_advisory_lock(connection):
                if time.monotonic() > deadline:
                    connection.close()
                    raise InUse("another server uses this database")
                time.sleep(0.1)
            for setting in _PLANNING:
                connection.exec_driver_sql(f"SET {setting} = off")
            connection.exec_driver_sql(_COMPRESSION)
            connection.commit()
        return connection

    def begin(self, cursor: Any) -> None:
        """Begins a transaction of the writer: on SQLite with the lock that writers need, on PostgreSQL by itself."""
        if self.is_sqlite:
            cursor.execute("BEGIN IMMEDIATE")

    def leave_transaction(self, connection: Connection) -> None:
        """Ends what is left of a transaction on SQLite: a commit that failed may leave it open."""
        if self.is_sqlite:
            driver: Any = connection.connection.driver_connection
            if driver.in_transaction:
                driver.rollback()

    def text(self, sql: str) -> str:
        """A statement that marks its parameters with `?`, as the driver takes it; `INDEXED BY` is for SQLite alone. It
        must hold no other `?`.
        """
        return sql if self.is_sqlite else _HINT.sub("", sql).replace("?", "%s")

    def give_back(self, cursor: Any) -> None:
        """Gives some of the pages that deletions have left on SQLite back to the disk. What the next rows will need
        stays; PostgreSQL sees to it by itself.
        """
        if self.is_sqlite:
            cursor.execute("PRAGMA freelist_count")
            spare = cursor.fetchone()[0] - KEPT_PAGES
            if spare > 0:
                cursor.execute(f"PRAGMA incremental_vacuum({min(spare, PAGES_AT_ONCE)})")
                cursor.fetchall()

    def list_parameter(self, values: Sequence[Any]) -> Any:
        """A list as one parameter of a hot statement."""
        return json.dumps(values) if self.is_sqlite else list(values)

    def disk_usage(self, data_dir: Path) -> float:
        """Percent of the disk that holds the data."""
        usage = shutil.disk_usage(self.path.parent if self.path else data_dir)
        return 100.0 * usage.used / usage.total

    async def close(self) -> None:
        """Closes every connection; aiosqlite's threads end with theirs."""
        await self.direct.close()
        await self.reading.dispose()
        self.writing.dispose()


def _try_advisory_lock(connection: Connection) -> bool:
    held = connection.exec_driver_sql("SELECT pg_try_advisory_lock(%s)", (_ADVISORY_LOCK,)).scalar_one()
    connection.commit()
    return bool(held)


def _sqlite_engines(path: Path, uri: str) -> tuple[Engine, AsyncEngine]:
    writing = create_engine(
        "sqlite://",
        creator=lambda: _open_sqlite(path),
        poolclass=QueuePool,
        pool_size=1,
        max_overflow=0,
        pool_reset_on_return=None,
        hide_parameters=True,
    )

    @event.listens_for(writing, "begin")
    def take_the_write_lock(connection: Connection) -> None:  # pyright: ignore[reportUnusedFunction] - registered
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    reading = create_async_engine(
        f"sqlite+aiosqlite:///{uri}&uri=true", pool_size=READERS, max_overflow=0, hide_parameters=True
    )
    return writing, reading


def _open_sqlite(path: Path) -> Any:
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    connection = sqlite3.connect(path, timeout=LOCK_WAIT_SECONDS, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA auto_vacuum=INCREMENTAL")  # takes effect only before the first table
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")
    return connection

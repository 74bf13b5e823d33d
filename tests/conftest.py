"""Fixtures that many tests share: throwaway databases on both engines."""

import os
import secrets
import signal
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

import psycopg
import pytest
from psycopg import sql
from redis import Redis
from redis.exceptions import RedisError

from ao_server.store import sqlite_library

# Before any test imports sqlite3: beside another copy of SQLite in its process the server's would lose its locks.
sqlite_library.install()

POSTGRES_URL = os.environ.get("TEST_POSTGRES_URL", "postgresql://postgres@127.0.0.1:5432/postgres")
REDIS_URL = os.environ.get("TEST_REDIS_URL", "redis://127.0.0.1:6379/0")
REQUIRED = os.environ.get("AGENT_ORCHESTRATION_REQUIRE_SERVICES") == "1"


def pytest_configure() -> None:
    """Lets the processes that tests start be stopped as from a terminal, however the tests themselves were started."""
    # A signal that is ignored here (nohup, `&` in a script) would be ignored in every child. A handler that does
    # nothing is as good for us, and is not inherited.
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, _heed_nothing)


def skip_or_fail(reason: str) -> NoReturn:
    """Skips where a service is missing; fails where it must be there, as in CI."""
    if REQUIRED:
        pytest.fail(reason)
    pytest.skip(reason)


@contextmanager
def postgres_database() -> Generator[str, None, None]:
    """The URL of an empty PostgreSQL database, dropped afterwards."""
    try:
        connection = psycopg.connect(POSTGRES_URL, autocommit=True, connect_timeout=3)
    except psycopg.OperationalError as error:
        skip_or_fail(f"PostgreSQL is not reachable at TEST_POSTGRES_URL: {error}")
    name = f"ao_test_{secrets.token_hex(6)}"
    with connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        yield _with_database(name)
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def postgres_url() -> Generator[str, None, None]:
    """The URL of an empty PostgreSQL database of the test's own."""
    with postgres_database() as url:
        yield url


@pytest.fixture
def redis_url() -> str:
    """The URL of a Redis that others use too: keys need names of the test's own."""
    with Redis.from_url(REDIS_URL, socket_connect_timeout=3, socket_timeout=3) as client:  # pyright: ignore[reportUnknownMemberType]
        try:
            client.ping()  # pyright: ignore[reportUnknownMemberType]
        except RedisError as error:
            skip_or_fail(f"Redis is not reachable at TEST_REDIS_URL: {error}")
    return REDIS_URL


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, once on each engine."""
    if request.param == "postgresql":
        url: str = request.getfixturevalue("postgres_url")
        return url
    return f"sqlite:///{tmp_path / 'ao.db'}"


def _with_database(name: str) -> str:
    return POSTGRES_URL.rsplit("/", 1)[0] + "/" + name


def _heed_nothing(number: int, frame: FrameType | None) -> None:
    pass

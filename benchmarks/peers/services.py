"""What the peers keep their tasks in: a Redis process of their own, a PostgreSQL database of their own, a file."""

import shutil
import socket
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final

import pytest

from benchmarks.figure import Unavailable
from benchmarks.peers.environment import variables
from benchmarks.processes import command
from tests.conftest import postgres_database
from tests.e2e.processes import wait_until

START_SECONDS: Final = 10.0
APPEND_ONLY: Final = ("--save", "", "--appendonly", "yes", "--appendfsync", "everysec")

# Holds the service for as long as the context lasts; gives the variables that tell a peer where it is.
Service = Callable[[Path], AbstractContextManager[dict[str, str]]]


@contextmanager
def redis(folder: Path) -> Generator[dict[str, str], None, None]:
    """A server on a free port that appends to a file and syncs it once a second."""
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if program is None:
        raise Unavailable("redis-server is not installed")
    port = _free_port()
    place = ("--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder))
    with command([program, *place, *APPEND_ONLY], folder=folder, name="redis", environment=variables()):
        wait_until(lambda: _accepts(port), START_SECONDS, "Redis accepts no connection")
        yield {"REDIS_URL": f"redis://127.0.0.1:{port}/0"}


@contextmanager
def postgres(folder: Path) -> Generator[dict[str, str], None, None]:
    """A database on the server that the tests use too, dropped afterwards."""
    try:
        with postgres_database() as url:
            yield {"DATABASE_URL": url}
    except pytest.skip.Exception as missing:
        raise Unavailable(str(missing)) from None


@contextmanager
def sqlite(folder: Path) -> Generator[dict[str, str], None, None]:
    """A file."""
    yield {"DATABASE_URL": f"sqlite:///{folder / 'peer.db'}"}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0

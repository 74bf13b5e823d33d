"""What a server is told from outside: command-line options over environment variables over defaults."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ao_server.errors import CannotStart

PREFIX: Final = "AGENT_ORCHESTRATION_"
MIN_KEY_LENGTH: Final = 8
MAX_LEASE_SECONDS: Final = 3600.0
LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})


@dataclass(frozen=True, slots=True)
class Settings:
    """A server's settings. `lease` in seconds."""

    host: str
    grpc_port: int
    data_dir: Path
    database_url: str
    lease: float
    admin_key: str | None
    gateway_key: str | None


def read(
    *,
    host: str,
    grpc_port: int,
    data_dir: str | None,
    database_url: str | None,
    environment: Mapping[str, str] = os.environ,
) -> Settings:
    """Settings from options and environment; CannotStart, naming the variable, when one is wrong."""
    folder = Path(data_dir or _value(environment, "DATA_DIR") or ".ao").absolute()
    for name in ("RATE_LIMIT_PER_HOUR", "RATE_LIMIT_PER_MINUTE"):
        _whole_number(environment, name)
    return Settings(
        host=host,
        grpc_port=grpc_port,
        data_dir=folder,
        database_url=database_url or _value(environment, "DATABASE_URL") or f"sqlite:///{folder / 'ao.db'}",
        lease=_lease(environment),
        admin_key=_secret(environment, "API_KEY"),
        gateway_key=_secret(environment, "GATEWAY_KEY"),
    )


def _value(environment: Mapping[str, str], name: str) -> str | None:
    value = environment.get(PREFIX + name)
    return value.strip() if value is not None else None


def _secret(environment: Mapping[str, str], name: str) -> str | None:
    value = _value(environment, name)
    if value is None:
        return None
    if len(value) < MIN_KEY_LENGTH:
        raise CannotStart(f"{PREFIX}{name} must have at least {MIN_KEY_LENGTH} characters")
    if not all("!" <= character <= "~" for character in value):
        raise CannotStart(f"{PREFIX}{name} must be printable ASCII without spaces")
    return value


def _whole_number(environment: Mapping[str, str], name: str) -> int | None:
    value = _value(environment, name)
    if value is None:
        return None
    if not value.isascii() or not value.isdigit():
        raise CannotStart(f"{PREFIX}{name} must be a whole number, 0 or more")
    return int(value)


def _lease(environment: Mapping[str, str]) -> float:
    value = _value(environment, "LEASE_SECONDS")
    if value is None:
        return 15.0
    try:
        lease = float(value)
    except ValueError:
        lease = 0.0
    if not 3.0 <= lease <= MAX_LEASE_SECONDS:
        raise CannotStart(f"{PREFIX}LEASE_SECONDS must be a number of seconds from 3 to {MAX_LEASE_SECONDS:g}")
    return lease

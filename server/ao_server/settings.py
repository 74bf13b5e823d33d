"""What a server is told from outside: command-line options over environment variables over defaults."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent_orchestration import environment as environment_rules
from agent_orchestration.environment import PREFIX, check_host, check_rate_limits, secret, value
from ao_server.errors import CannotStart

MAX_LEASE_SECONDS: Final = 3600.0


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
    insecure: bool = False,
    environment: Mapping[str, str] = os.environ,
) -> Settings:
    """Settings from options and environment; CannotStart, naming the option or variable, when one is wrong."""
    folder = Path(data_dir or value(environment, "DATA_DIR") or ".ao").absolute()
    try:
        check_host(host, insecure=insecure)
        check_rate_limits(environment)
        return Settings(
            host=host,
            grpc_port=grpc_port,
            data_dir=folder,
            database_url=database_url or value(environment, "DATABASE_URL") or f"sqlite:///{folder / 'ao.db'}",
            lease=_lease(environment),
            admin_key=secret(environment, "API_KEY"),
            gateway_key=secret(environment, "GATEWAY_KEY"),
        )
    except environment_rules.CannotStart as refusal:
        # The store, which has reasons of its own, may not know the client's package.
        raise CannotStart(str(refusal)) from None


def _lease(environment: Mapping[str, str]) -> float:
    given = value(environment, "LEASE_SECONDS")
    if given is None:
        return 15.0
    try:
        lease = float(given)
    except ValueError:
        lease = 0.0
    if not 3.0 <= lease <= MAX_LEASE_SECONDS:
        raise CannotStart(f"{PREFIX}LEASE_SECONDS must be a number of seconds from 3 to {MAX_LEASE_SECONDS:g}")
    return lease

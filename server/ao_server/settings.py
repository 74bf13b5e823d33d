"""What a server is told from outside: command-line options over environment variables over defaults."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent_orchestration import environment as environment_rules
from agent_orchestration import tls
from agent_orchestration.environment import PREFIX, check_host, rate_limits, redis_url, secret, value
from agent_orchestration.rate_limits import Limits
from ao_server.errors import CannotStart

MAX_LEASE_SECONDS: Final = 3600.0
MAX_RETENTION_HOURS: Final = 10 * 365 * 24.0
MAX_AUDIT_DAYS: Final = 10 * 365.0


@dataclass(frozen=True, slots=True)
class Settings:
    """A server's settings. `lease`, `event_retention` and `audit_retention` in seconds, `disk_alert` in percent of the
    disk. `audits_tasks`: the audit log has every task that is created.
    """

    host: str
    grpc_port: int
    data_dir: Path
    database_url: str
    lease: float
    admin_key: str | None
    gateway_key: str | None
    event_retention: float
    disk_alert: float
    limits: Limits
    # Where they are counted, None for in memory.
    redis_url: str | None
    tls: tls.Serving | None
    # For a gateway of the same user on this machine, without TLS.
    inner_socket: Path | None
    audit_retention: float
    audits_tasks: bool


def read(
    *,
    host: str,
    grpc_port: int,
    data_dir: str | None,
    database_url: str | None,
    insecure: bool = False,
    tls_cert: str | None = None,
    tls_key: str | None = None,
    tls_client_ca: str | None = None,
    inner_socket: str | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Settings:
    """Settings from options and environment; CannotStart, naming the option or variable, when one is wrong."""
    folder = Path(data_dir or value(environment, "DATA_DIR") or ".ao").absolute()
    try:
        serving = tls.serving(environment, certificate=tls_cert, key=tls_key, client_ca=tls_client_ca)
        check_host(host, insecure=insecure or serving is not None)
        admin_key, gateway_key = secret(environment, "API_KEY"), secret(environment, "GATEWAY_KEY")
        if admin_key is not None and admin_key == gateway_key:
            # One string cannot stand for a user and for a gateway.
            raise CannotStart(f"{PREFIX}API_KEY and {PREFIX}GATEWAY_KEY must differ")
        return Settings(
            host=host,
            grpc_port=grpc_port,
            data_dir=folder,
            database_url=database_url or value(environment, "DATABASE_URL") or f"sqlite:///{folder / 'ao.db'}",
            lease=_number(environment, "LEASE_SECONDS", 15.0, 3.0, MAX_LEASE_SECONDS),
            admin_key=admin_key,
            gateway_key=gateway_key,
            event_retention=3600.0 * _number(environment, "EVENT_RETENTION_HOURS", 168.0, 0.001, MAX_RETENTION_HOURS),
            disk_alert=_number(environment, "DISK_ALERT_PERCENT", 90.0, 0.0, 100.0),
            limits=rate_limits(environment),
            redis_url=redis_url(environment),
            tls=serving,
            inner_socket=Path(inner_socket).absolute() if inner_socket is not None else None,
            audit_retention=86_400.0 * _number(environment, "AUDIT_RETENTION_DAYS", 365.0, 1.0, MAX_AUDIT_DAYS),
            audits_tasks=_is_on(environment, "AUDIT_TASKS"),
        )
    except environment_rules.CannotStart as refusal:
        # The store, which has reasons of its own, may not know the client's package.
        raise CannotStart(str(refusal)) from None


def _number(environment: Mapping[str, str], name: str, default: float, least: float, most: float) -> float:
    given = value(environment, name)
    if given is None:
        return default
    try:
        number = float(given)
    except ValueError:
        number = float("nan")
    # Written so that NaN fails too.
    if not least <= number <= most:
        raise CannotStart(f"{PREFIX}{name} must be a number from {least:g} to {most:g}")
    return number


def _is_on(environment: Mapping[str, str], name: str) -> bool:
    given = value(environment, name)
    if given not in (None, "0", "1"):
        raise CannotStart(f"{PREFIX}{name} must be 0 or 1")
    return given == "1"

"""What a gateway is told from outside: command-line options over environment variables over defaults."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PREFIX: Final = "AGENT_ORCHESTRATION_"
LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
DEFAULT_SERVER: Final = "127.0.0.1:50051"
MIN_KEY_LENGTH: Final = 8


class CannotStart(Exception):
    """A reason not to start that only the operator can remove; its text is the one line that is printed."""


@dataclass(frozen=True, slots=True)
class Settings:
    """A gateway's settings. `server` is the gRPC address; without a `key`, it is read from the data folder."""

    host: str
    port: int
    server: str
    data_dir: Path
    key: str | None


def read(
    *,
    host: str,
    port: int,
    server: str | None,
    data_dir: str | None,
    insecure: bool,
    environment: Mapping[str, str] = os.environ,
) -> Settings:
    """Settings from options and environment; CannotStart, naming the option or variable, when one is wrong."""
    if host not in LOOPBACK and not insecure:
        raise CannotStart(f"--host {host} is reachable from other machines: it needs --insecure")
    for name in ("RATE_LIMIT_PER_HOUR", "RATE_LIMIT_PER_MINUTE"):
        _check_whole_number(environment, name)
    return Settings(
        host=host,
        port=port,
        server=server or _value(environment, "SERVER") or DEFAULT_SERVER,
        data_dir=Path(data_dir or _value(environment, "DATA_DIR") or ".ao").absolute(),
        key=_secret(environment, "GATEWAY_KEY"),
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


def _check_whole_number(environment: Mapping[str, str], name: str) -> None:
    value = _value(environment, name)
    if value is not None and not (value.isascii() and value.isdigit()):
        raise CannotStart(f"{PREFIX}{name} must be a whole number, 0 or more")

"""What a gateway is told from outside: command-line options over environment variables over defaults."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent_orchestration import tls
from agent_orchestration.environment import PREFIX, CannotStart, check_host, rate_limits, redis_url, secret, value
from agent_orchestration.rate_limits import Limits
from ao_gateway import addresses, cors

DEFAULT_SERVER: Final = "127.0.0.1:50051"
_ORIGIN: Final = re.compile(r"https?://(?:[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")


@dataclass(frozen=True, slots=True)
class Settings:
    """A gateway's settings. `server` is the gRPC address, to which TLS is spoken with the files of `server_tls`;
    without a `key`, it is read from the data folder.
    """

    host: str
    port: int
    server: str
    server_tls: tls.Connecting | None
    data_dir: Path
    key: str | None
    limits: Limits
    # Where they are counted, None for in memory.
    redis_url: str | None
    # Origins whose pages may read answers; see `Cors`.
    origins: Sequence[str]
    trusted_proxies: Sequence[addresses.Network]
    # Where clients reach it, if that differs from what they see, e.g. behind a proxy that ends TLS.
    public_url: str | None
    tls: tls.Serving | None


def read(
    *,
    host: str,
    port: int,
    server: str | None,
    data_dir: str | None,
    insecure: bool,
    tls_cert: str | None = None,
    tls_key: str | None = None,
    tls_client_ca: str | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Settings:
    """Settings from options and environment; CannotStart, naming the option or variable, when one is wrong."""
    serving = tls.serving(environment, certificate=tls_cert, key=tls_key, client_ca=tls_client_ca)
    check_host(host, insecure=insecure or serving is not None)
    given = server or value(environment, "SERVER") or DEFAULT_SERVER
    name = "--server" if server else f"{PREFIX}SERVER"
    target, server_tls = tls.connecting(environment, given, name, certificate=tls_cert, key=tls_key)
    return Settings(
        host=host,
        port=port,
        server=target,
        server_tls=server_tls,
        data_dir=Path(data_dir or value(environment, "DATA_DIR") or ".ao").absolute(),
        key=secret(environment, "GATEWAY_KEY"),
        limits=rate_limits(environment),
        redis_url=redis_url(environment),
        origins=_origins(environment),
        trusted_proxies=_trusted_proxies(environment),
        public_url=_public_url(environment),
        tls=serving,
    )


def _origins(environment: Mapping[str, str]) -> Sequence[str]:
    try:
        return cors.origins(value(environment, "CORS_ORIGINS") or "")
    except ValueError as wrong:
        raise CannotStart(
            f"{PREFIX}CORS_ORIGINS must be origins as browsers print them (https://app.example.com), or * alone, "
            f"not {str(wrong)!r}"
        ) from None


def _trusted_proxies(environment: Mapping[str, str]) -> Sequence[addresses.Network]:
    try:
        return addresses.networks(value(environment, "TRUSTED_PROXIES") or "")
    except ValueError as wrong:
        raise CannotStart(
            f"{PREFIX}TRUSTED_PROXIES must be addresses and networks (10.0.0.0/8), not {str(wrong)!r}"
        ) from None


def _public_url(environment: Mapping[str, str]) -> str | None:
    given = value(environment, "PUBLIC_URL")
    if given is not None and not _ORIGIN.fullmatch(given):
        raise CannotStart(f"{PREFIX}PUBLIC_URL must be a scheme, a host and at most a port, as https://ao.example.com")
    return given

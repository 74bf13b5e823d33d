"""Where the server is and the key for it: arguments over environment variables over defaults."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from agent_orchestration.environment import CannotStart
from agent_orchestration.tls import Connecting, connecting

DEFAULT_SERVER: Final = "127.0.0.1:50051"
SERVER: Final = "AGENT_ORCHESTRATION_SERVER"
API_KEY: Final = "AGENT_ORCHESTRATION_API_KEY"
CERTIFICATES: Final = ("AGENT_ORCHESTRATION_TLS_CERT", "AGENT_ORCHESTRATION_TLS_CLIENT_CERT")
CA: Final = "AGENT_ORCHESTRATION_TLS_CA"


class BadSettings(Exception):
    """An address or key that cannot be used; the text says which and why, without the key."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where the server is, and the credential for it. With `tls`, TLS is spoken to it."""

    host: str
    port: int
    api_key: str
    tls: Connecting | None = None

    @property
    def target(self) -> str:
        """HOST:PORT, with brackets around an IPv6 address."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def read(server: str | None = None, api_key: str | None = None, environment: Mapping[str, str] = os.environ) -> Address:
    """The address from the arguments or else the environment. BadSettings when it is not usable."""
    given, name = _given(server, "the server", SERVER, environment)
    target, files = _tls(given or DEFAULT_SERVER, name, environment)
    host, port = _place(target, name)
    return Address(host, port, _key(*_given(api_key, "the API key", API_KEY, environment)), files)


def _tls(server: str, name: str, environment: Mapping[str, str]) -> tuple[str, Connecting | None]:
    try:
        target, files = connecting(environment, server, name)
        if files is not None:
            files.read()
        for variable in CERTIFICATES:
            if files is None and environment.get(variable, "").strip():
                raise BadSettings(f"{variable} is of use with TLS alone: write https://HOST:PORT, or set {CA}")
    except CannotStart as problem:
        raise BadSettings(str(problem)) from None
    return target, files


def _given(argument: str | None, what: str, variable: str, environment: Mapping[str, str]) -> tuple[str, str]:
    """The trimmed value, and what to call it: keys read from files made elsewhere end in CR or LF."""
    if argument is not None:
        return argument.strip(), what
    return environment.get(variable, "").strip(), variable


def _place(server: str, name: str) -> tuple[str, int]:
    host, _, port = server.rpartition(":")
    is_bracketed = host.startswith("[") and host.endswith("]")
    if is_bracketed:
        host = host[1:-1]
    is_port = port.isascii() and port.isdigit() and 0 < int(port) < 65536
    if not is_port or not host or "/" in host or (":" in host and not is_bracketed):
        raise BadSettings(f"{name} must be HOST:PORT or https://HOST:PORT, not {server!r}")
    return host, int(port)


def _key(key: str, name: str) -> str:
    if not key:
        raise BadSettings(f"an API key is needed: set {API_KEY}")
    if not all("!" <= character <= "~" for character in key):
        raise BadSettings(f"{name} must be printable ASCII without spaces")
    return key

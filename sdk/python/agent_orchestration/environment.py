"""How the halves of the control plane are told things from outside, and what they refuse before they start."""

import re
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Final
from urllib.parse import urlsplit

from agent_orchestration.rate_limits import Limits

PREFIX: Final = "AGENT_ORCHESTRATION_"
LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
MIN_KEY_LENGTH: Final = 8
# Longer ones would fit into no header.
MAX_KEY_LENGTH: Final = 4_096
DEFAULT_PER_HOUR: Final = 1000
DEFAULT_PER_MINUTE: Final = 100
MAX_LIMIT: Final = 1_000_000_000


class CannotStart(Exception):
    """A reason not to start that only the operator can remove: one line, which names the option or variable that is
    wrong and never holds a secret.
    """


def value(environment: Mapping[str, str], name: str) -> str | None:
    """The variable `PREFIX + name`, trimmed: values read from files made elsewhere end in CR or LF."""
    given = environment.get(PREFIX + name)
    return given.strip() if given is not None else None


def secret(environment: Mapping[str, str], name: str) -> str | None:
    """A key of 8 to 4,096 printable ASCII characters, None when the variable is not set. CannotStart for any other."""
    given = value(environment, name)
    if given is None:
        return None
    if len(given) < MIN_KEY_LENGTH:
        raise CannotStart(f"{PREFIX}{name} must have at least {MIN_KEY_LENGTH} characters")
    if len(given) > MAX_KEY_LENGTH:
        raise CannotStart(f"{PREFIX}{name} must have at most {MAX_KEY_LENGTH} characters")
    if not all("!" <= character <= "~" for character in given):
        raise CannotStart(f"{PREFIX}{name} must be printable ASCII without spaces")
    return given


def rate_limits(environment: Mapping[str, str]) -> Limits:
    """The limits of credentials that have none of their own. CannotStart when one is not a number, or too large."""
    return Limits(
        _whole_number(environment, "RATE_LIMIT_PER_HOUR", DEFAULT_PER_HOUR),
        _whole_number(environment, "RATE_LIMIT_PER_MINUTE", DEFAULT_PER_MINUTE),
    )


def redis_url(environment: Mapping[str, str]) -> str | None:
    """Where rate limits are counted, None for in memory. CannotStart, which never shows the URL, for a bad one and when
    the extra is not installed.
    """
    given = value(environment, "REDIS_URL")
    if given is None:
        return None
    if not _is_redis_url(given):
        raise CannotStart(
            f"{PREFIX}REDIS_URL must be redis://HOST:PORT/DATABASE, rediss://HOST:PORT/DATABASE or "
            "unix:///PATH?db=DATABASE, with USER:PASSWORD@ before the host or path if needed, percent-encoded"
        )
    if find_spec("redis") is None:
        raise CannotStart(f"{PREFIX}REDIS_URL needs the extra: pip install 'agent-orchestration[redis]'")
    return given


def _is_redis_url(given: str) -> bool:
    try:
        parts = urlsplit(given)
        # Read for its check alone: no number, or beyond 65535.
        _ = parts.port
    except ValueError:
        return False
    # The library takes any of its options from a query, ours among them.
    if parts.fragment or not given.isascii():
        return False
    if parts.scheme == "unix":
        return bool(parts.path.strip("/")) and re.fullmatch(r"(db=\d{1,5})?", parts.query) is not None
    is_database = re.fullmatch(r"/?|/\d{1,5}", parts.path) is not None
    return parts.scheme in ("redis", "rediss") and bool(parts.hostname) and is_database and not parts.query


def _whole_number(environment: Mapping[str, str], name: str, default: int) -> int:
    given = value(environment, name)
    if given is None:
        return default
    if not (given.isascii() and given.isdigit() and len(given) <= len(str(MAX_LIMIT)) and int(given) <= MAX_LIMIT):
        raise CannotStart(f"{PREFIX}{name} must be a whole number from 0 to {MAX_LIMIT}")
    return int(given)


def check_host(host: str, *, insecure: bool) -> None:
    """CannotStart for an address that other machines can reach, unless it is to be: with TLS, or with `--insecure`."""
    if host not in LOOPBACK and not insecure:
        raise CannotStart(
            f"--host {host} is reachable from other machines: it needs --tls-cert and --tls-key, "
            "or --insecure behind a proxy that brings TLS"
        )

"""Whether a failed attempt is followed by another, and after how long."""

from collections.abc import Callable
from typing import Final

import msgspec

from ao_server.engine.configuration import Settings
from ao_server.store import rows

MICROSECONDS: Final = 1_000_000
# Codes of failures that another attempt would only repeat.
FUTILE: Final = frozenset({"invalid_result", "result_too_large", "no_handler"})


class Policy(msgspec.Struct, omit_defaults=True):
    """What a task says of its retries; None where it leaves that to the agent or to us. Backoffs in microseconds."""

    attempts: int | None = None
    backoff: int | None = None
    max_backoff: int | None = None
    jitter: bool | None = None


DEFAULT: Final = Policy(attempts=0, backoff=MICROSECONDS, max_backoff=300 * MICROSECONDS, jitter=True)


def encode(policy: Policy) -> str:
    """As a task keeps it."""
    return msgspec.json.encode(policy).decode()


def of(task: rows.Task) -> Policy:
    """What the task says."""
    return Policy() if task.retry is None else msgspec.json.decode(task.retry, type=Policy)


def backoff(task: rows.Task, settings: Settings, random: Callable[[], float]) -> int | None:
    """Microseconds until the attempt after this failure, None when there is none. `random`: from 0 to 1."""
    policy = of(task)
    attempts = settings.retry_attempts if policy.attempts is None else policy.attempts
    if task.failures >= attempts:
        return None
    first = _or(policy.backoff, DEFAULT.backoff)
    most = _or(policy.max_backoff, DEFAULT.max_backoff)
    # No power of two above 2**40 is of interest, and none must overflow.
    wait = min(first << min(task.failures, 40), most)
    return wait if policy.jitter is False else round(wait * random())


def _or(given: int | None, default: int | None) -> int:
    value = default if given is None else given
    assert value is not None
    return value

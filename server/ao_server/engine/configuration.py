"""An agent's configuration: any JSON object, of which three keys have a meaning here; the others are only carried."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

import msgspec

from ao_server.errors import FieldProblem, Invalid

MAX_CONFIGURATION_BYTES: Final = 65_536
MAX_CONCURRENT_TASKS: Final = 10_000
MAX_RETRY_ATTEMPTS: Final = 100
MAX_TIMEOUT_SECONDS: Final = 10 * 365 * 86_400
DEFAULT_MAX_CONCURRENT_TASKS: Final = 10
DEFAULT_TIMEOUT_SECONDS: Final = 3600.0


class Settings(msgspec.Struct, frozen=True):
    """The keys that have a meaning. `timeout` of one attempt in seconds."""

    max_concurrent_tasks: int = DEFAULT_MAX_CONCURRENT_TASKS
    timeout: float = DEFAULT_TIMEOUT_SECONDS
    retry_attempts: int = 0


@lru_cache(maxsize=10_000)
def settings_of(configuration: str) -> Settings:
    """The settings within a stored configuration; of a key that stands there twice the last, as `check` sees it."""
    values = _values(configuration)
    known = {key: msgspec.json.decode(values[key]) for key in Settings.__struct_fields__ if key in values}
    return msgspec.convert(known, Settings)


def check(configuration: str) -> None:
    """Invalid, naming each key with a bad value."""
    values = _values(configuration)
    problems = [
        FieldProblem(f"configuration.{key}", message)
        for key, accepts, message in _RULES
        if key in values and not accepts(_number(values[key]))
    ]
    if problems:
        raise Invalid("; ".join(f"{each.field}: {each.message}" for each in problems), details=problems)


def merged(stored: str, given: str) -> str:
    """The stored configuration with each top-level key of the given one in place of its own; values stay verbatim.

    Invalid when the outcome is too long.
    """
    both = _values(stored) | _values(given)
    text = msgspec.json.encode(both).decode()
    if len(text.encode()) > MAX_CONFIGURATION_BYTES:
        raise Invalid.field("configuration", f"must be at most {MAX_CONFIGURATION_BYTES} bytes of JSON in all")
    return text


def _values(configuration: str) -> dict[str, msgspec.Raw]:
    return msgspec.json.decode(configuration, type=dict[str, msgspec.Raw])


def _number(raw: msgspec.Raw) -> int | float | None:
    value: Any = msgspec.json.decode(raw)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


_RULES: list[tuple[str, Callable[[int | float | None], bool], str]] = [
    (
        "max_concurrent_tasks",
        lambda value: isinstance(value, int) and 1 <= value <= MAX_CONCURRENT_TASKS,
        f"must be an integer from 1 to {MAX_CONCURRENT_TASKS}",
    ),
    (
        "timeout",
        lambda value: value is not None and 0 < value <= MAX_TIMEOUT_SECONDS,
        f"must be a number of seconds above 0 and at most {MAX_TIMEOUT_SECONDS}",
    ),
    (
        "retry_attempts",
        lambda value: isinstance(value, int) and 0 <= value <= MAX_RETRY_ATTEMPTS,
        f"must be an integer from 0 to {MAX_RETRY_ATTEMPTS}",
    ),
]

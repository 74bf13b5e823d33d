"""The public class: an agent, its functions, and how to run it."""

import asyncio
import inspect
import json
import sys
import weakref
from collections.abc import Callable, Mapping, Sequence
from types import FunctionType
from typing import Any, Final, Literal, TypeVar, cast

from agent_runner.calls import Handler
from agent_runner.definition import ANY_TYPE, Definition, TaskFunction
from agent_runner.program import Program
from agent_runner.source import Source

HandlerType = TypeVar("HandlerType", bound=Callable[..., Any])

MAX_NAME_LENGTH: Final = 200
MAX_TYPE_LENGTH: Final = 100
MAX_ENVIRONMENT_LENGTH: Final = 64
DEFAULT_CONCURRENT_TASKS: Final = 10
MAX_CONCURRENT_TASKS: Final = 10_000
MAX_RETRY_ATTEMPTS: Final = 100
MAX_DESCRIPTION_LENGTH: Final = 2_000
MAX_SCHEMA_LENGTH: Final = 65_536
MAX_TIMEOUT_SECONDS: Final = 10 * 365 * 86_400
DRAIN_SECONDS: Final = 25.0

# Every agent of this process: a child looks here for the functions that its file has registered.
_AGENTS: Final["weakref.WeakSet[Agent]"] = weakref.WeakSet()


def isolated(name: str, type: str, task_type: str) -> Handler | None:
    """The isolated function that an agent of this name and type has for tasks of a type."""
    for agent in _AGENTS:
        if (agent.name, agent.type) == (name, type):
            function = agent.definition().function(task_type)
            if function is not None and function.isolated is not None and callable(function.run):
                return function.run
    return None


class Agent:
    """An agent: a name, a type, and functions for types of tasks.

    What is given here registers the agent when it connects for the first time; afterwards the stored settings win.
    `timeout` is in seconds; `configuration` holds settings of your own. `agent_id` attaches to an agent that exists
    already. ValueError or TypeError when an argument cannot be used.
    """

    def __init__(
        self,
        name: str,
        type: str,
        *,
        max_concurrent_tasks: int = DEFAULT_CONCURRENT_TASKS,
        timeout: float | None = None,
        retry_attempts: int | None = None,
        environment: str | None = None,
        agent_id: str | None = None,
        configuration: Mapping[str, Any] | None = None,
    ) -> None:
        self.name = _text("name", name, MAX_NAME_LENGTH)
        self.type = _text("type", type, MAX_TYPE_LENGTH)
        self.environment = None if environment is None else _text("environment", environment, MAX_ENVIRONMENT_LENGTH)
        self.agent_id = None if agent_id is None else _text("agent_id", agent_id, MAX_NAME_LENGTH)
        settings: dict[str, Any] = {
            "max_concurrent_tasks": _whole("max_concurrent_tasks", max_concurrent_tasks, 1, MAX_CONCURRENT_TASKS)
        }
        if timeout is not None:
            settings["timeout"] = _seconds("timeout", timeout)
        if retry_attempts is not None:
            settings["retry_attempts"] = _whole("retry_attempts", retry_attempts, 0, MAX_RETRY_ATTEMPTS)
        self._configuration = _json(settings, configuration or {})
        self._functions: dict[str, TaskFunction] = {}
        _AGENTS.add(self)

    def task(
        self,
        type: str | None = None,
        *,
        isolate: Literal["process"] | None = None,
        description: str | None = None,
        schema: Mapping[str, Any] | None = None,
        default: bool = False,
    ) -> Callable[[HandlerType], HandlerType]:
        """Registers a function, async or plain, for tasks of this type. It is returned unchanged.

        The function gets a `Task` and returns a dict, or None for an empty result. With `default`, or the type `"*"`,
        it takes every type that has no function of its own. With `isolate="process"` it runs in a child process, which
        can be killed. `description` and `schema`, a JSON Schema of the payload, are for those who submit tasks.

        ValueError when the type has a function already, and when a child process could not find the function.
        """
        if callable(type) or (type is None and not default):
            raise TypeError('write @agent.task("some_type"): the type of the tasks is missing')
        type = ANY_TYPE if type is None else _text("task type", type, MAX_TYPE_LENGTH)
        if isolate not in (None, "process"):
            raise ValueError(f"isolate must be 'process' or None, not {isolate!r}")
        if description is not None:
            _text("description", description, MAX_DESCRIPTION_LENGTH)
        schema_text = None if schema is None else _schema(schema)
        types = (type, ANY_TYPE) if default and type != ANY_TYPE else (type,)
        source = Source.of_caller() if isolate is not None else None

        def register(function: HandlerType) -> HandlerType:
            if not callable(function):
                raise TypeError(f"{function!r} is not a function")
            if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
                raise TypeError(f"{function.__qualname__} is a generator: a task function returns its result")
            if isolate is not None:
                _check_isolated(function, source)
            for each in types:
                self._register(each, TaskFunction(function, source, description, schema_text))
            return function

        return register

    def run(
        self, server: str | None = None, api_key: str | None = None, *, drain_timeout: float = DRAIN_SECONDS
    ) -> None:
        """Serves until SIGTERM or Ctrl-C, as `ao runner` does. SystemExit with 2 when there is no point in going on.

        `server` is HOST:PORT. Without arguments `AGENT_ORCHESTRATION_SERVER` and `AGENT_ORCHESTRATION_API_KEY` count.
        `drain_timeout`: how many seconds running tasks get to end after the signal.
        """
        from agent_runner import process

        code = process.run([self.definition()], server, api_key, drain_timeout)
        if code:
            sys.exit(code)

    async def serve(
        self, server: str | None = None, api_key: str | None = None, *, drain_timeout: float = DRAIN_SECONDS
    ) -> None:
        """Serves within a running event loop, and leaves signals to its owner. When it is cancelled it drains first.

        `stream.Refused` when the server will not have the agent, `settings.BadSettings` for an odd address or key.
        """
        from agent_runner import process, settings

        links = process.Links([self.definition()], settings.read(server, api_key))
        serving = asyncio.ensure_future(links.serve())
        try:
            await asyncio.shield(serving)
        except asyncio.CancelledError:
            links.drain(drain_timeout)
            await serving
            raise

    @property
    def task_types(self) -> tuple[str, ...]:
        """The types that have a function."""
        return tuple(self._functions)

    def running(self, program: Program, task_types: Sequence[str]) -> Definition:
        """What the link says of the agent when a program runs its tasks."""
        for task_type in task_types:
            self._register(_text("task type", task_type, MAX_TYPE_LENGTH), TaskFunction(program))
        return self.definition()

    def _register(self, task_type: str, function: TaskFunction) -> None:
        if task_type in self._functions:
            raise ValueError(f"agent {self.name!r} has a function for {task_type!r} already")
        self._functions[task_type] = function

    def definition(self) -> Definition:
        """What the link says of the agent."""
        return Definition(
            self.name, self.type, self.agent_id, self.environment, self._configuration, dict(self._functions)
        )


# Agent code may be untyped: what the annotations promise is checked.


def _text(what: str, value: Any, limit: int) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{what} must be text, not {value!r}")
    if not value.strip() or len(value) > limit or "\0" in value:
        raise ValueError(f"{what} must have 1 to {limit} characters, none of them U+0000")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{what} must not contain lone surrogates") from None
    return value


def _whole(what: str, value: Any, least: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{what} must be an integer, not {value!r}")
    if not least <= value <= most:
        raise ValueError(f"{what} must be from {least} to {most}, not {value}")
    return value


def _seconds(what: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{what} must be a number of seconds, not {value!r}")
    # Written so that NaN fails too.
    if not 0 < value <= MAX_TIMEOUT_SECONDS:
        raise ValueError(f"{what} must be above 0 and at most {MAX_TIMEOUT_SECONDS} seconds, not {value}")
    return value


def _json(settings: dict[str, Any], configuration: Mapping[str, Any]) -> str:
    for key in ("max_concurrent_tasks", "timeout", "retry_attempts"):
        if key in configuration:
            raise ValueError(f"give {key} as an argument of its own, not within configuration")
    return _json_text("configuration", {**settings, **configuration})


def _schema(schema: Any) -> str:
    if not isinstance(schema, Mapping):
        raise TypeError(f"schema must be a dict, not {schema!r}")
    text = _json_text("schema", dict(cast("Mapping[str, Any]", schema)))
    if len(text) > MAX_SCHEMA_LENGTH:
        raise ValueError(f"schema must have at most {MAX_SCHEMA_LENGTH} characters of JSON, not {len(text)}")
    return text


def _json_text(what: str, value: dict[str, Any]) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{what} is not JSON: {error}") from None
    return text


def _check_isolated(function: Any, source: Source | None) -> None:
    name = getattr(function, "__qualname__", None)
    if not isinstance(function, FunctionType) or name is None or "<" in name:
        raise ValueError(f"isolate='process' takes functions that a module defines by name, not {name or function!r}")
    if source is None:
        raise ValueError("isolate='process' is for functions that are registered while a file of code is imported")

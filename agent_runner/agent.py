"""The public class: an agent, its functions, and how to run it."""

import asyncio
import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from agent_runner.attempts import Handler

HandlerType = TypeVar("HandlerType", bound=Callable[..., Any])

MAX_NAME_LENGTH = 200
MAX_TYPE_LENGTH = 100


class Agent:
    """An agent: a name, a type, and functions for types of tasks.

    What is given here registers the agent when it connects for the first time; afterwards the stored settings win.
    `timeout` is in seconds. ValueError or TypeError when an argument is not usable.
    """

    def __init__(
        self,
        name: str,
        type: str,
        *,
        max_concurrent_tasks: int = 10,
        timeout: float | None = None,
        retry_attempts: int | None = None,
        environment: str | None = None,
        configuration: Mapping[str, Any] | None = None,
        agent_id: str | None = None,
    ) -> None:
        self.name = _text("name", name, MAX_NAME_LENGTH)
        self.type = _text("type", type, MAX_TYPE_LENGTH)
        if isinstance(max_concurrent_tasks, bool) or not 1 <= max_concurrent_tasks <= 10_000:
            raise ValueError("max_concurrent_tasks must be an integer from 1 to 10000")
        settings = {
            "max_concurrent_tasks": max_concurrent_tasks,
            "timeout": timeout,
            "retry_attempts": retry_attempts,
            **(configuration or {}),
        }
        self.configuration = json.dumps({key: value for key, value in settings.items() if value is not None})
        self.environment = environment
        self.agent_id = agent_id
        self.handlers: dict[str, Handler] = {}

    def task(self, type: str) -> Callable[[HandlerType], HandlerType]:
        """Registers a function, async or plain, for tasks of this type; `"*"` takes every other type.

        The function gets a `Task` and returns a dict, or None for an empty result. It is returned unchanged. ValueError
        when the type has a function already.
        """
        _text("task type", type, MAX_TYPE_LENGTH)

        def register(function: HandlerType) -> HandlerType:
            if not callable(function):
                raise TypeError(f"{function!r} is not a function")
            if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
                raise TypeError(f"{function.__name__} is a generator: a task function returns its result")
            if type in self.handlers:
                raise ValueError(f"agent {self.name!r} has a function for {type!r} already")
            self.handlers[type] = function
            return function

        return register

    def run(self, server: str | None = None, api_key: str | None = None) -> None:
        """Serves until SIGTERM or Ctrl-C, as `ao runner` would, then ends the process.

        `server` is HOST:PORT. Without arguments `AGENT_ORCHESTRATION_SERVER` and `AGENT_ORCHESTRATION_API_KEY` count.
        """
        from agent_runner.process import run

        run([self], server, api_key)

    async def serve(self, server: str | None = None, api_key: str | None = None) -> None:
        """Serves within a running event loop until cancelled; the loop's owner keeps its signals.

        `link.Refused` when the server will not have the agent.
        """
        from agent_runner.process import Runner, connection

        runner = Runner([self], connection(server, api_key))
        try:
            await runner.serve()
        except asyncio.CancelledError:
            await runner.drain(0.0)
            raise


def _text(what: str, value: str, limit: int) -> str:
    if not isinstance(value, str):  # pyright: ignore[reportUnnecessaryIsInstance] - agent code may be untyped
        raise TypeError(f"{what} must be text, not {value!r}")
    if not value or len(value) > limit or "\0" in value:
        raise ValueError(f"{what} must have 1 to {limit} characters, none of them U+0000")
    return value

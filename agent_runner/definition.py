"""What the code, or the command line, says of an agent."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from agent_runner.calls import Handler, is_async
from agent_runner.program import Program
from agent_runner.source import Source

ANY_TYPE: Final = "*"
# Of the tasks that a step of a workflow makes when it names no type.
DEFAULT_TYPE: Final = "default"


@dataclass(frozen=True, slots=True)
class TaskFunction:
    """What runs tasks of one type: a function of the agent, or a program."""

    run: Handler | Program
    # Set when the function runs in a child process, which finds it by importing this.
    isolated: Source | None = None
    description: str | None = None
    # The text of a JSON Schema.
    schema: str | None = None
    # Whether it runs in the event loop of agent code.
    is_async: bool = field(init=False)

    def __post_init__(self) -> None:
        here = self.isolated is None and not isinstance(self.run, Program) and is_async(self.run)
        object.__setattr__(self, "is_async", here)


@dataclass(frozen=True, slots=True)
class Definition:
    """An agent. `configuration` is the text of a JSON object; `functions` are by type of task, `*` for any other."""

    name: str
    type: str
    agent_id: str | None
    environment: str | None
    configuration: str
    functions: Mapping[str, TaskFunction]

    @property
    def listed(self) -> Mapping[str, TaskFunction]:
        """What the server is told of: an only function takes the type `default` too."""
        if len(self.functions) != 1 or ANY_TYPE in self.functions:
            return self.functions
        (only,) = self.functions.values()
        return {**self.functions, DEFAULT_TYPE: only}

    def function(self, task_type: str) -> TaskFunction | None:
        """What runs tasks of this type."""
        return self.listed.get(task_type) or self.functions.get(ANY_TYPE)

"""What users submit: new agents and new tasks."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from ao_server.engine import transitions
from ao_server.engine.ids import Ids
from ao_server.errors import FieldProblem, Invalid
from ao_server.store import rows
from ao_server.store.changes import Changes, Found, Key, Operation

MAX_CONCURRENT_TASKS = 10_000
MAX_RETRY_ATTEMPTS = 100
MAX_TIMEOUT_SECONDS = 10 * 365 * 86_400
DEFAULT_MAX_CONCURRENT_TASKS = 10
DEFAULT_TIMEOUT_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class NewAgent:
    """A request to register an agent. `configuration` is the text of a JSON object."""

    project_id: str
    name: str
    type: str
    configuration: str = "{}"
    environment: str | None = None


@dataclass(frozen=True, slots=True)
class NewTask:
    """A request for a task. `priority`: 0 critical to 3 low. `payload` is the text of a JSON object."""

    project_id: str
    agent_id: str
    type: str
    priority: int
    payload: str


class Settings(msgspec.Struct):
    """The keys of an agent's configuration that have a meaning; the others are only carried."""

    max_concurrent_tasks: int = DEFAULT_MAX_CONCURRENT_TASKS
    timeout: float = DEFAULT_TIMEOUT_SECONDS
    retry_attempts: int = 0


def settings_of(configuration: str) -> Settings:
    """The settings within a stored configuration."""
    return msgspec.json.decode(configuration, type=Settings)


def check_configuration(configuration: str) -> None:
    """Invalid, naming each key with a bad value."""
    values: dict[str, Any] = msgspec.json.decode(configuration, type=dict[str, msgspec.Raw])
    problems = [
        FieldProblem(f"configuration.{key}", message)
        for key, accepts, message in _CONFIGURATION_RULES
        if key in values and not accepts(_number(values[key]))
    ]
    if problems:
        raise Invalid("; ".join(f"{each.field}: {each.message}" for each in problems), details=problems)


def create_agent(new: NewAgent, ids: Ids) -> Operation[rows.Agent]:
    """Registers an agent. The first of its type and name is the one that processes of that type and name become."""

    def decide(found: Found, now: int) -> Changes[rows.Agent]:
        taken = found.get(rows.Registration, new.project_id, new.type, new.name)
        changes = agent_record(new, ids, now)
        if taken is None:
            changes.rows.append(registration(changes.answer))
        return changes

    return Operation(decide, keys=[Key(rows.Registration, (new.project_id, new.type, new.name))])


def agent_record(new: NewAgent, ids: Ids, now: int) -> Changes[rows.Agent]:
    """A new agent, `initializing`."""
    identifier, created_at = ids.new("agent", now)
    agent = rows.Agent(
        project_id=new.project_id,
        id=identifier,
        name=new.name,
        type=new.type,
        status="initializing",
        configuration=new.configuration,
        environment=new.environment,
        created_at=created_at,
        updated_at=created_at,
    )
    return Changes(agent, rows=[agent])


def registration(agent: rows.Agent) -> rows.Registration:
    """What lets a process find the agent by type and name."""
    return rows.Registration(project_id=agent.project_id, type=agent.type, name=agent.name, agent_id=agent.id)


def create_task(new: NewTask, ids: Ids) -> Operation[rows.Task]:
    """Submits a task. Invalid when its agent does not exist."""

    def decide(found: Found, now: int) -> Changes[rows.Task]:
        if found.get(rows.Agent, new.project_id, new.agent_id) is None:
            raise Invalid.field("agent_id", f"there is no agent {new.agent_id}")
        identifier, created_at = ids.new("task", now)
        task = rows.Task(
            project_id=new.project_id,
            id=identifier,
            agent_id=new.agent_id,
            type=new.type,
            priority=new.priority,
            created_at=created_at,
            status="pending",
        )
        return transitions.create(task, new.payload)

    return Operation(decide, keys=[Key(rows.Agent, (new.project_id, new.agent_id))])


def _number(raw: msgspec.Raw) -> int | float | None:
    value: Any = msgspec.json.decode(raw)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


_CONFIGURATION_RULES: list[tuple[str, Callable[[int | float | None], bool], str]] = [
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

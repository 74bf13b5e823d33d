"""What people do to agents: change them, pause, drain and resume them, delete them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ao_server.engine import configuration, presence, transitions
from ao_server.engine.sessions import AgentKey
from ao_server.engine.transitions import Failure
from ao_server.errors import NotFound
from ao_server.store import rows
from ao_server.store.changes import Changes, Found, Key, Operation
from ao_server.store.selections import TaskSelections

CLEARED_AT_ONCE: Final = 500
DELETED: Final = Failure("agent_deleted", "its agent was deleted")

IsPresent = Callable[[AgentKey], bool]


@dataclass(frozen=True, slots=True)
class AgentUpdate:
    """What is to change; None leaves it. `configuration` is merged by its top-level keys."""

    name: str | None = None
    configuration: str | None = None
    environment: str | None = None


def update(key: AgentKey, update: AgentUpdate, told: Callable[[rows.Agent], None]) -> Operation[rows.Agent]:
    """Changes an agent and tells `told` after the commit. NotFound, or Invalid for a bad configuration."""

    def decide(found: Found, now: int) -> Changes[rows.Agent]:
        before = _existing(found, key)
        after = rows.copy_of(before)
        if update.name is not None:
            after.name = update.name
        if update.environment is not None:
            after.environment = update.environment
        if update.configuration is not None:
            after.configuration = configuration.merged(before.configuration, update.configuration)
        return _updated(before, after, now)

    return Operation(decide, keys=[Key(rows.Agent, tuple(key))], delivered=told)


def set_mode(key: AgentKey, mode: str, is_present: IsPresent) -> Operation[rows.Agent]:
    """Pauses (`paused`), drains (`draining`) or resumes (`serving`) an agent. NotFound."""

    def decide(found: Found, now: int) -> Changes[rows.Agent]:
        before = _existing(found, key)

        def change(after: rows.Agent) -> None:
            after.mode = mode

        if before.mode == mode:
            return Changes(before)
        moved = presence.moved(before, change, now, is_present=is_present(key))
        updated = _updated(before, moved.answer, now)
        return Changes(updated.answer, updated.rows, events=[*updated.events, *moved.events])

    return Operation(decide, keys=[Key(rows.Agent, tuple(key))])


def delete(
    key: AgentKey, registered_as: str | None, type_: str, gone: Callable[[rows.Agent], None]
) -> Operation[rows.Agent]:
    """Deletes an agent, which `deleted_at` then says; `gone` is told after the commit. `clear` cancels its tasks.

    `registered_as` and `type_`: as the agent's row says, read before. NotFound.
    """
    keys = [Key(rows.Agent, tuple(key))]
    registration = None if registered_as is None else Key(rows.Registration, (key.project_id, type_, registered_as))
    if registration is not None:
        keys.append(registration)

    def decide(found: Found, now: int) -> Changes[rows.Agent]:
        after = rows.copy_of(_existing(found, key))
        previous = after.status
        after.deleted_at = after.updated_at = now
        after.status = "inactive"
        changes = Changes(after, rows=[after], events=[presence.event("agent_deleted", after, previous, now)])
        if registration is not None:
            registered = found.get(rows.Registration, key.project_id, type_, registered_as or "")
            if registered is not None and registered.agent_id == key.agent_id:
                freed = rows.copy_of(registered)
                freed.agent_id = ""
                changes.rows.append(freed)
        return changes

    return Operation(decide, keys=keys, delivered=gone)


def clear(key: AgentKey, selections: TaskSelections) -> Operation[int]:
    """Cancels some of the tasks that a deleted agent left; answers how many. Zero: all are cancelled."""

    def decide(found: Found, now: int) -> Changes[int]:
        changes = Changes(0)
        for (task,) in found.selected:
            if task.agent_id == key.agent_id and task.status in ("pending", "running"):
                changes.include([transitions.cancel(task, DELETED, now)])
                changes.answer += 1
        return changes

    return Operation(decide, selection=selections.unfinished(*key, CLEARED_AT_ONCE))


def _existing(found: Found, key: AgentKey) -> rows.Agent:
    agent = found.get(rows.Agent, *key)
    if agent is None or agent.deleted_at is not None:
        raise NotFound("there is no such agent")
    return agent


def _updated(before: rows.Agent, after: rows.Agent, now: int) -> Changes[rows.Agent]:
    if after == before:
        return Changes(before)
    after.updated_at = now
    return Changes(after, rows=[after], events=[presence.event("agent_updated", after, before.status, now)])

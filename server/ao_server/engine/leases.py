"""What happens to the work of an instance that is gone: it said goodbye, or its lease ran out."""

from collections.abc import Callable, Collection

from ao_server.engine import presence, transitions
from ao_server.engine.sessions import AgentKey, Attempt, InstanceKey
from ao_server.store import rows
from ao_server.store.changes import Changes, Found, Key, Operation
from ao_server.store.selections import TaskSelections


def lose(key: InstanceKey, selections: TaskSelections, is_gone: Callable[[], bool]) -> Operation[bool]:
    """Its lease ran out: everything it holds goes back, and counts as delivered. Answers whether it is gone: in the
    moment of the write it may have come back, by a hello that sees to what it holds.
    """

    def decide(found: Found, now: int) -> Changes[bool]:
        if not is_gone():
            return Changes(False)
        changes = _let_go(key, found, now, transitions.lose)
        agent = found.get(rows.Agent, *key.agent)
        if changes.answer and agent is not None:
            changes.include([presence.lost(agent, now)])
        return Changes(True, changes.rows, changes.events)

    return Operation(decide, keys=[Key(rows.Agent, tuple(key.agent))], selection=selections.held_by(*key))


def say_goodbye(key: InstanceKey, selections: TaskSelections) -> Operation[int]:
    """It left in good order: whatever the store still counts as its own goes back, uncounted."""

    def decide(found: Found, now: int) -> Changes[int]:
        return _let_go(key, found, now, transitions.hand_back)

    return Operation(decide, selection=selections.held_by(*key))


def give_back(key: InstanceKey, attempts: Collection[Attempt]) -> Operation[None]:
    """Assignments that never reached the process go back, uncounted."""

    def decide(found: Found, now: int) -> Changes[None]:
        changes: Changes[None] = Changes(None)
        for task_id, number in attempts:
            task = found.get(rows.Task, key.project_id, task_id)
            if task is not None and _holds(key, task) and task.attempt == number:
                changes.include([transitions.hand_back(task, now)])
        return changes

    return Operation(decide, keys=[Key(rows.Task, (key.project_id, task_id)) for task_id, _ in attempts])


def settle_agent_status(
    agent: AgentKey, is_present: Callable[[AgentKey], bool], heard_at: int | None = None
) -> Operation[None]:
    """Makes the agent's status say whether any of its processes is present, as of the moment of the write. `heard_at`:
    when the one that has gone was last heard of, None where nobody knows.
    """

    def decide(found: Found, now: int) -> Changes[None]:
        row = found.get(rows.Agent, *agent)
        if row is None or row.deleted_at is not None or is_present(agent):
            return Changes(None)
        moved = presence.disconnected(row, heard_at, now)
        return Changes(None, moved.rows, moved.events)

    return Operation(decide, keys=[Key(rows.Agent, tuple(agent))])


def _let_go(
    key: InstanceKey, found: Found, now: int, transition: Callable[[rows.Task, int], Changes[rows.Task]]
) -> Changes[int]:
    changes = Changes(0)
    for (task,) in found.selected:
        if _holds(key, task):
            changes.include([transition(task, now)])
            changes.answer += 1
    return changes


def _holds(key: InstanceKey, task: rows.Task) -> bool:
    return task.status == "running" and (task.agent_id, task.instance_id) == (key.agent_id, key.instance_id)

"""How an agent's record moves: its processes come, go and die, people pause and resume it. Row and event together."""

from collections.abc import Callable
from typing import Final

from ao_server.engine import bodies, states
from ao_server.store import rows
from ao_server.store.changes import Changes

# Processes lost in a row, while they held tasks, after which an agent is in error.
MAX_LOST_SESSIONS: Final = 5

Change = Callable[[rows.Agent], None]


def is_broken(agent: rows.Agent) -> bool:
    """Whether it gets one trial task at a time until one succeeds."""
    return agent.lost_sessions >= MAX_LOST_SESSIONS


def connected(agent: rows.Agent, now: int) -> Changes[rows.Agent]:
    """An instance of the agent is there."""

    def change(after: rows.Agent) -> None:
        after.last_seen_at = now

    return moved(agent, change, now, is_present=True)


def disconnected(agent: rows.Agent, heard_at: int | None, now: int) -> Changes[rows.Agent]:
    """The last instance of the agent has gone; it was last heard of at `heard_at`, None where nobody knows."""

    def change(after: rows.Agent) -> None:
        if heard_at is not None:
            after.last_seen_at = heard_at

    return moved(agent, change, now, is_present=False)


def lost(agent: rows.Agent, now: int) -> Changes[rows.Agent]:
    """A process was lost while it held tasks. Whether another is there is settled by another write."""

    def change(after: rows.Agent) -> None:
        after.lost_sessions += 1

    changes = moved(agent, change, now, is_present=agent.status == "active")
    if is_broken(changes.answer) and not is_broken(agent):
        message = f"agent {agent.id}: {changes.answer.lost_sessions} processes in a row were lost while they worked"
        changes.events.append(_alert(agent, "critical", message, now))
    return changes


def succeeded(agent: rows.Agent, now: int) -> Changes[rows.Agent]:
    """A task of the agent completed: its processes can work."""
    if not agent.lost_sessions:
        return Changes(agent)

    def change(after: rows.Agent) -> None:
        after.lost_sessions = 0

    changes = moved(agent, change, now, is_present=True)
    if is_broken(agent):
        changes.events.append(_alert(agent, "info", f"agent {agent.id} works again", now))
    return changes


def moved(agent: rows.Agent, change: Change, now: int, *, is_present: bool) -> Changes[rows.Agent]:
    """The agent after a change, with the status that follows from it, and the event if the status is another."""
    after = rows.copy_of(agent)
    change(after)
    after.status = states.agent_status(
        mode=after.mode,
        is_broken=is_broken(after),
        is_present=is_present,
        was_seen=after.last_seen_at is not None,
    )
    changes = Changes(after, rows=[after])
    if after.status != agent.status:
        after.updated_at = now
        changes.events.append(event("agent_status_change", after, agent.status, now))
    return changes


def event(type_: str, agent: rows.Agent, previous_status: str, now: int) -> rows.Event:
    """What has become of the agent."""
    body = bodies.AgentBody(agent.id, agent.name, agent.type, agent.status, previous_status)
    return bodies.event(type_, agent.project_id, body, now, agent_id=agent.id)


def _alert(agent: rows.Agent, severity: str, message: str, now: int) -> rows.Event:
    body = bodies.AlertBody("agent_error", severity, message, now)
    return bodies.event("system_alert", agent.project_id, body, now, agent_id=agent.id)

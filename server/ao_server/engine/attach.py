"""An instance says hello: which agent it becomes, and which of the attempts it speaks of are still its own."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from ao_server.engine import intake, presence, transitions
from ao_server.engine.ids import Ids
from ao_server.engine.sessions import Attempt, InstanceKey
from ao_server.errors import Forbidden, NotFound
from ao_server.store import rows
from ao_server.store.changes import Changes, Found, Key, Operation
from ao_server.store.selections import TaskSelections

NOT_ITS_AGENT: Final = "the credential is for runners of another agent"


@dataclass(frozen=True, slots=True)
class Attached:
    """The agent that was attached to; attempts that go on, and those of them that are to stop; attempts that are no
    longer the instance's.
    """

    agent: rows.Agent
    kept: dict[str, int]
    superseded: list[Attempt]
    to_stop: list[Attempt]


def register(new: intake.NewAgent, ids: Ids, only: str | None = None) -> Operation[str]:
    """The id of the agent registered under a type and name, made if there is none. Two at once make one. Forbidden when
    it is not the only one that is allowed.
    """

    def decide(found: Found, now: int) -> Changes[str]:
        registered = found.get(rows.Registration, new.project_id, new.type, new.name)
        if only is not None and (registered is None or registered.agent_id != only):
            raise Forbidden(NOT_ITS_AGENT)
        if registered is not None and registered.agent_id:
            return Changes(registered.agent_id)
        changes = intake.agent_record(new, ids, now, is_registered=True)
        return Changes(changes.answer.id, changes.rows, changes.events)

    return Operation(decide, keys=[Key(rows.Registration, (new.project_id, new.type, new.name))])


def attach(key: InstanceKey, held: Mapping[str, int], selections: TaskSelections) -> Operation[Attached]:
    """Reconciles what the instance says it holds with what the store says. NotFound when the agent does not exist.

    What both know goes on. What only the store knows never reached the process, or was lost by it: back to the queue.
    What only the process knows was given to somebody else, or has ended.
    """

    def decide(found: Found, now: int) -> Changes[Attached]:
        agent = found.get(rows.Agent, key.project_id, key.agent_id)
        if agent is None or agent.deleted_at is not None:
            raise NotFound("there is no such agent")
        kept: dict[str, int] = {}
        to_stop: list[Attempt] = []
        changes = presence.connected(agent, now)
        for (task,) in found.selected:
            if task.status != "running" or task.instance_id != key.instance_id:
                continue
            if held.get(task.id) == task.attempt:
                kept[task.id] = task.attempt
                if task.cancel_requested_at is not None:
                    to_stop.append(Attempt(task.id, task.attempt))
            else:
                changes.include([transitions.hand_back(task, now)])
        superseded = [Attempt(*each) for each in held.items() if each[0] not in kept]
        answer = Attached(changes.answer, kept, superseded, to_stop)
        return Changes(answer, changes.rows, changes.events)

    return Operation(
        decide,
        keys=[Key(rows.Agent, (key.project_id, key.agent_id))],
        selection=selections.held_by(*key),
    )

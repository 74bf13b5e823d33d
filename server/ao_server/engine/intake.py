"""What users submit: new agents and new tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from ao_server.engine import presence, states, transitions
from ao_server.engine.ids import Ids
from ao_server.errors import Conflict, Invalid, NotFound
from ao_server.store import rows
from ao_server.store.changes import Changes, Found, Key, Operation

TYPE_QUEUE = "type:"


@dataclass(frozen=True, slots=True)
class NewAgent:
    """A request to register an agent. `configuration` is the text of a JSON object."""

    project_id: str
    name: str
    type: str
    configuration: str = "{}"
    environment: str | None = None


class NewTask(msgspec.Struct, frozen=True):
    """A request for a task, of one agent or else of any agent of `agent_type`.

    `priority`: 0 critical to 3 low. `payload` is the text of a JSON object. Times and durations in microseconds; a task
    with `run_at` or `delay` waits. `retry` as `retries.encode` gives it.
    """

    project_id: str
    agent_id: str | None
    type: str
    priority: int
    payload: str
    agent_type: str | None = None
    labels: dict[str, str] = {}
    timeout: int | None = None
    retry: str | None = None
    run_at: int | None = None
    delay: int | None = None
    # In front of the names of fields in problems, such as `tasks[3].`.
    path: str = ""


def create_agent(new: NewAgent, ids: Ids) -> Operation[rows.Agent]:
    """Registers an agent. The first of its type and name is the one that processes of that type and name become."""

    def decide(found: Found, now: int) -> Changes[rows.Agent]:
        taken = found.get(rows.Registration, new.project_id, new.type, new.name)
        return agent_record(new, ids, now, is_registered=taken is None or not taken.agent_id)

    return Operation(decide, keys=[Key(rows.Registration, (new.project_id, new.type, new.name))])


def agent_record(new: NewAgent, ids: Ids, now: int, *, is_registered: bool) -> Changes[rows.Agent]:
    """A new agent, `initializing`, and what lets a process find it by type and name."""
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
        registered_as=new.name if is_registered else None,
    )
    changes = Changes(agent, rows=[agent], events=[presence.event("agent_created", agent, agent.status, created_at)])
    if is_registered:
        found_by = rows.Registration(project_id=new.project_id, type=new.type, name=new.name, agent_id=identifier)
        changes.rows.append(found_by)
    return changes


def create_task(new: NewTask, ids: Ids) -> Operation[rows.Task]:
    """Submits a task. Invalid when its agent does not exist."""

    def decide(found: Found, now: int) -> Changes[rows.Task]:
        return _task(new, found, ids, now)

    return Operation(decide, keys=_agent_keys([new]))


def create_tasks(new: Sequence[NewTask], ids: Ids) -> Operation[list[rows.Task]]:
    """Submits tasks, all or none. Invalid as for one, naming the task."""

    def decide(found: Found, now: int) -> Changes[list[rows.Task]]:
        changes: Changes[list[rows.Task]] = Changes([])
        for each in new:
            created = _task(each, found, ids, now)
            changes.include([created])
            changes.answer.append(created.answer)
        return changes

    return Operation(decide, keys=_agent_keys(new))


def retry_task(project_id: str, task_id: str, agent_id: str, ids: Ids) -> Operation[tuple[rows.Task, str]]:
    """Makes a new task like a final one, for the same agent or type of agents, to run at once; answers it and its
    payload. NotFound when there is no such task, Conflict when it is not final or its agent is gone.

    `agent_id`: the agent that the task names, empty for none, as read before.
    """

    def decide(found: Found, now: int) -> Changes[tuple[rows.Task, str]]:
        task = found.get(rows.Task, project_id, task_id)
        payload = found.get(rows.Payload, project_id, task_id)
        if task is None or payload is None:
            raise NotFound("there is no such task")
        if task.status not in states.FINAL:
            raise Conflict(f"the task is {task.status}: only a completed, failed or cancelled one can be retried")
        target = None if task.queue.startswith(TYPE_QUEUE) else agent_id
        new = NewTask(
            project_id,
            target,
            task.type,
            task.priority,
            payload.payload,
            agent_type=task.agent_type if target is None else None,
            labels=labels_of(task),
            timeout=task.timeout,
            retry=task.retry,
        )
        try:
            created = _task(new, found, ids, now, retry_of=task.id)
        except Invalid:
            raise Conflict("the agent of this task was deleted") from None
        return Changes((created.answer, payload.payload), created.rows, created.events)

    keys = [Key(rows.Task, (project_id, task_id)), Key(rows.Payload, (project_id, task_id))]
    return Operation(decide, keys=[*keys, Key(rows.Agent, (project_id, agent_id))])


def labels_of(task: rows.Task) -> dict[str, str]:
    """The task's labels."""
    return {} if task.labels is None else msgspec.json.decode(task.labels, type=dict[str, str])


def _agent_keys(new: Sequence[NewTask]) -> list[Key]:
    wanted = {(each.project_id, each.agent_id) for each in new if each.agent_id is not None}
    return [Key(rows.Agent, key) for key in sorted(wanted)]


def _task(new: NewTask, found: Found, ids: Ids, now: int, retry_of: str | None = None) -> Changes[rows.Task]:
    if new.agent_id is not None:
        agent = found.get(rows.Agent, new.project_id, new.agent_id)
        if agent is None or agent.deleted_at is not None:
            raise Invalid.field(f"{new.path}agent_id", "there is no such agent")
        agent_id, agent_type, queue = agent.id, agent.type, agent.id
    else:
        assert new.agent_type is not None
        agent_id, agent_type, queue = "", new.agent_type, TYPE_QUEUE + new.agent_type
    identifier, created_at = ids.new("task", now)
    run_at = new.run_at if new.delay is None else now + new.delay
    task = rows.Task(
        project_id=new.project_id,
        id=identifier,
        agent_id=agent_id,
        agent_type=agent_type,
        queue=queue,
        type=new.type,
        priority=new.priority,
        created_at=created_at,
        status="pending",
        labels=msgspec.json.encode(new.labels).decode() if new.labels else None,
        timeout=new.timeout,
        retry=new.retry,
        run_at=run_at,
        ready_at=run_at if run_at is not None and run_at > now else None,
        retry_of=retry_of,
    )
    return transitions.create(task, new.payload, new.labels)

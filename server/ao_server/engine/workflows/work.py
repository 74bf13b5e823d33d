"""What executions make: tasks of steps, executions of steps, and the undoing of steps."""

import msgspec

from ao_server.engine import intake, retries, transitions
from ao_server.engine.ids import Ids
from ao_server.engine.workflows.definition import Graph, Step
from ao_server.engine.workflows.happenings import ExecutionKey
from ao_server.store import rows
from ao_server.store.changes import Changes
from ao_server.store.workflow_tables import INPUT, OUTPUT, PARAMETERS, RESULT

__all__ = ["INPUT", "OUTPUT", "PARAMETERS", "RESULT", "NewExecution", "execution", "steps", "task", "undoing", "value"]

# What a task of a step without a type is: what the agent does by default.
DEFAULT_TYPE = "default"


class NewExecution(msgspec.Struct, frozen=True):
    """A request for an execution of a version of a workflow, by somebody or by the step of another execution.

    `parameters` is the text of a JSON object.
    """

    project_id: str
    workflow_id: str
    version: int
    priority: int
    parameters: str
    parent: rows.Execution | None = None
    step: str | None = None
    item: int | None = None


def execution(new: NewExecution, ids: Ids, now: int, *, is_postponed: bool = False) -> Changes[rows.Execution]:
    """A new execution, none of whose steps has begun. `is_postponed`: it begins in a later transaction."""
    identifier, created_at = ids.new("execution", now)
    row = rows.Execution(
        project_id=new.project_id,
        id=identifier,
        workflow_id=new.workflow_id,
        version=new.version,
        priority=new.priority,
        created_at=created_at,
        parent_id=None if new.parent is None else new.parent.id,
        parent_step=new.step,
        parent_item=new.item,
        depth=0 if new.parent is None else new.parent.depth + 1,
        postponed=1 if is_postponed else None,
    )
    return Changes(row, rows=[row, value(row, PARAMETERS, 0, new.parameters)])


def steps(execution: ExecutionKey, graph: Graph) -> list[rows.ExecutionStep]:
    """The steps of an execution that has not begun, by place."""
    project_id, execution_id = execution
    return [
        rows.ExecutionStep(project_id=project_id, execution_id=execution_id, place=node.place) for node in graph.nodes
    ]


def task(
    owner: rows.Execution, step: Step, payload: str, ids: Ids, now: int, *, item: int | None = None, is_first: bool
) -> Changes[rows.Task]:
    """A task of a step. `is_first`: the execution begins with it, so that it waits in turn with other new work."""
    return _task(owner, step, step.agent_type, step.type, payload, ids, now, item=item, turn=1 if is_first else 0)


def undoing(owner: rows.Execution, step: Step, payload: str, ids: Ids, now: int) -> Changes[rows.Task]:
    """The task that undoes a step."""
    assert step.compensate is not None
    agent_type = step.compensate.agent_type or step.agent_type
    return _task(owner, step, agent_type, step.compensate.type, payload, ids, now, item=None, turn=0)


def value(owner: rows.Execution, name: str, place: int, text: str) -> rows.ExecutionValue:
    """A JSON value of an execution."""
    return rows.ExecutionValue(project_id=owner.project_id, execution_id=owner.id, name=name, place=place, value=text)


def _task(
    owner: rows.Execution,
    step: Step,
    agent_type: str | None,
    type_: str | None,
    payload: str,
    ids: Ids,
    now: int,
    *,
    item: int | None,
    turn: int,
) -> Changes[rows.Task]:
    assert agent_type is not None
    identifier, created_at = ids.new("task", now)
    row = rows.Task(
        project_id=owner.project_id,
        id=identifier,
        agent_id="",
        agent_type=agent_type,
        queue=intake.TYPE_QUEUE + agent_type,
        type=type_ or DEFAULT_TYPE,
        priority=owner.priority,
        created_at=created_at,
        status="pending",
        timeout=step.timeout,
        retry=None if step.retry is None else retries.encode(step.retry),
        execution_id=owner.id,
        step_id=step.id,
        item=item,
        turn=turn,
    )
    return transitions.create(row, payload, {})

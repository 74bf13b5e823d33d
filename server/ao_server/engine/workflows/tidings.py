"""The events of executions: what watchers hear when rows of them have changed."""

from collections.abc import Iterable

from ao_server.engine import bodies
from ao_server.engine.workflows.definition import Graph, Step
from ao_server.store import rows

# A step before and after.
StepChange = tuple[rows.ExecutionStep, rows.ExecutionStep]


def of_execution(before: rows.Execution, after: rows.Execution, now: int, *, has_begun: bool) -> list[rows.Event]:
    """What has become of it. `has_begun`: it is new, or begins again."""
    types: list[str] = []
    if has_begun:
        types.append("workflow_started")
    if after.phase == "cancelling" and before.phase != "cancelling":
        types.append("workflow_cancel_requested")
    if after.phase == "ended" and before.phase != "ended":
        types.append(f"workflow_{after.status}")
    return [bodies.workflow_event(type_, after, now) for type_ in types]


def of_steps(graph: Graph, execution: rows.Execution, changes: Iterable[StepChange], now: int) -> list[rows.Event]:
    """What has become of its steps; nothing is told of joins."""
    events: list[rows.Event] = []
    for before, after in changes:
        step = graph.nodes[after.place].step
        if step is None:
            continue
        types: list[str] = []
        if before.status != after.status and after.status != "pending":
            types.append("started" if after.status == "running" else after.status)
        if before.compensation != after.compensation and after.compensation is not None:
            types.append("compensation")
        for type_ in types:
            events.append(bodies.workflow_event(f"workflow_step_{type_}", execution, now, after, name_of(step)))
    return events


def name_of(step: Step) -> bodies.StepName:
    """What is shown of a step beside how it stands."""
    return bodies.StepName(
        id=step.id,
        name=step.name,
        kind=step.kind,
        order=step.order or 0,
        agent_type=step.agent_type,
        depends_on=step.depends_on or [],
    )

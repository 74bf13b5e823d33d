"""Executions and their steps as they are shown alone, with inputs, outputs and what ran."""

from collections.abc import Mapping, Sequence, Set

from agent_orchestration.v1 import executions_pb2
from ao_server.api import messages
from ao_server.engine.workflows import tidings, work
from ao_server.engine.workflows.definition import Graph, Step
from ao_server.engine.workflows.happenings import ExecutionKey
from ao_server.store import execution_values, rows
from ao_server.store.execution_values import Source
from ao_server.store.executions import Ran
from ao_server.store.workflow_tables import INPUT, OUTPUT, PARAMETERS, RESULT

NOTHING_RAN = Ran()


def created(row: rows.Execution, graph: Graph, parameters: str) -> executions_pb2.Execution:
    """An execution in the moment of its creation: nothing has begun."""
    message = messages.listed_execution(row)
    message.parameters = parameters
    steps = work.steps(ExecutionKey(row.project_id, row.id), graph)
    for place, definition in definitions(graph):
        message.steps.append(execution_step(steps[place], definition, NOTHING_RAN))
    return message


def execution_step(row: rows.ExecutionStep, definition: Step, ran: Ran) -> executions_pb2.ExecutionStep:
    """A step with what ran for it, without input and output."""
    message = messages.listed_step(row, tidings.name_of(definition))
    message.task_ids.extend(ran.task_ids.get(definition.id, ()))
    message.execution_ids.extend(ran.execution_ids.get(definition.id, ()))
    message.attempts = ran.attempts.get(row.last_id or "", 0)
    return message


def add_values(
    message: executions_pb2.ExecutionStep,
    row: rows.ExecutionStep,
    definition: Step,
    texts: Mapping[Source, str],
    omitted: Set[Source] = frozenset(),
) -> None:
    """Shows input and output, where they are among the texts, or that they are left out."""
    for name, source in (("input", input_of(row, definition)), ("output", output_of(row, definition))):
        if source is None:
            continue
        if source in texts:
            setattr(message, name, texts[source])
        elif source in omitted:
            setattr(message, f"{name}_omitted", True)


def definitions(graph: Graph) -> Sequence[tuple[int, Step]]:
    """Places and steps without the joins."""
    return [(node.place, node.step) for node in graph.nodes if node.step is not None]


def input_of(row: rows.ExecutionStep, definition: Step) -> Source:
    """Where the input of a step stands, if it has one."""
    if definition.for_each is None and row.last_id is not None:
        if definition.kind == "task":
            return execution_values.payload(row.last_id)
        if definition.kind == "workflow":
            return execution_values.value(row.last_id, PARAMETERS)
    return execution_values.value(row.execution_id, INPUT, row.place)


def output_of(row: rows.ExecutionStep, definition: Step) -> Source | None:
    """Where the output of a step stands, None before it has one. Of one that went on without some of its items, the
    others are there.
    """
    if row.status != "completed" and (row.status != "failed" or definition.for_each is None):
        return None
    if definition.for_each is None and row.last_id is not None:
        if definition.kind == "task":
            return execution_values.result(row.last_id)
        if definition.kind == "workflow":
            return execution_values.value(row.last_id, RESULT)
    return execution_values.value(row.execution_id, OUTPUT, row.place)

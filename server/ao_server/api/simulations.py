"""Tries workflows out: what would happen, with which agents, in which time. Nothing is made."""

import asyncio
from collections.abc import Iterable

from agent_orchestration.v1 import tasks_pb2, workflows_pb2
from ao_server.api import calls, messages, subworkflows
from ao_server.engine.transitions import Failure
from ao_server.engine.workflows import forecast, simulation
from ao_server.engine.workflows.definition import Graph
from ao_server.engine.workflows.simulation import Outcome, SimulatedStep, Simulation
from ao_server.errors import FieldProblem, Invalid
from ao_server.store import agents, counts, workflows
from ao_server.store.reader import Reader


async def simulate(
    reader: Reader, graph: Graph, parameters: str, assumed: Iterable[workflows_pb2.AssumedOutcome]
) -> workflows_pb2.Simulation:
    """Plays the steps through. Invalid when an outcome is of no step, or when there is too much to play."""
    project_id = calls.current().project_id
    steps = [node.step for node in graph.nodes if node.step is not None]
    archived = await workflows.archived(reader, project_id, subworkflows.named(steps))
    outcomes = _outcomes(graph, assumed)
    played = await asyncio.to_thread(simulation.simulate, graph, parameters, outcomes, archived)
    executed = subworkflows.named([each.step for each in played.steps if each.group is not None])
    below = await subworkflows.agent_types(reader, project_id, executed)
    needed = sorted(forecast.agent_types(played) | below)
    there = await agents.active_types(reader, project_id, needed)
    kinds = {forecast.kind(each.step) for each in played.steps}
    expected = forecast.forecast(graph, played, await counts.mean_durations(reader, project_id, kinds))
    message = _message(played)
    message.missing_agents.extend(type_ for type_ in needed if type_ not in there)
    if expected.whole is not None:
        message.expected_duration.FromMicroseconds(expected.whole)
    for shown in message.steps:
        if shown.id in expected.steps:
            shown.expected_duration.FromMicroseconds(expected.steps[shown.id])
    return message


def _outcomes(graph: Graph, assumed: Iterable[workflows_pb2.AssumedOutcome]) -> dict[str, Outcome]:
    outcomes: dict[str, Outcome] = {}
    problems: list[FieldProblem] = []
    for place, each in enumerate(assumed):
        if each.step_id not in graph.places:
            problems.append(FieldProblem(f"outcomes[{place}].step_id", "there is no such step"))
        elif each.step_id in outcomes:
            problems.append(FieldProblem(f"outcomes[{place}].step_id", "an outcome of this step is given already"))
        fails = each.status == workflows_pb2.ASSUMED_STATUS_FAILED
        outcomes[each.step_id] = Outcome(fails, each.output if each.HasField("output") else None)
    if problems:
        raise Invalid.fields(problems)
    return outcomes


def _message(played: Simulation) -> workflows_pb2.Simulation:
    return messages.filled(
        workflows_pb2.Simulation,
        played,
        error=_error(played.error),
        steps=[_step(each) for each in played.steps],
        groups=[workflows_pb2.SimulatedGroup(steps=group) for group in played.groups],
        skipped=played.skipped,
        compensation=played.compensation,
    )


def _step(played: SimulatedStep) -> workflows_pb2.SimulatedStep:
    return messages.filled(
        workflows_pb2.SimulatedStep, played, id=played.step.id, name=played.step.name, error=_error(played.error)
    )


def _error(failure: Failure | None) -> tasks_pb2.TaskError | None:
    return None if failure is None else tasks_pb2.TaskError(code=failure.code, message=failure.message)

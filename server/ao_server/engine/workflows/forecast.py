"""What a simulated execution needs: agents, and time by how long tasks like its own have taken so far."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

from ao_server.engine.workflows import edges, work
from ao_server.engine.workflows.definition import Graph, Step
from ao_server.engine.workflows.planner import MAX_PARALLEL
from ao_server.engine.workflows.simulation import SimulatedStep, Simulation

# The type of an agent, and of a task.
Kind = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Forecast:
    """Microseconds by the ids of steps, without those that nothing is known of, and of the whole: None where that is
    so of a step that runs a task.
    """

    steps: Mapping[str, int]
    whole: int | None


def kind(step: Step) -> Kind:
    """What the tasks of a step are counted under."""
    return step.agent_type or "", step.type or work.DEFAULT_TYPE


def agent_types(simulation: Simulation) -> set[str]:
    """The types of agents that its own steps need."""
    undone = set(simulation.compensation)
    needed: set[str | None] = set()
    for each in simulation.steps:
        if each.group is not None and each.step.kind == "task":
            needed.add(each.step.agent_type)
        if each.step.id in undone and each.step.compensate is not None:
            needed.add(each.step.compensate.agent_type or each.step.agent_type)
    return {type_ for type_ in needed if type_ is not None}


def forecast(graph: Graph, simulation: Simulation, means: Mapping[Kind, int]) -> Forecast:
    """How long it takes, along the longest way through the graph. `means`: microseconds that such tasks took so far."""
    begun = [each for each in simulation.steps if each.group is not None]
    known = {each.step.id: took for each in begun if (took := _duration(each, means)) is not None}
    if len(known) < len(begun):
        return Forecast(known, None)
    ends: dict[int, int] = {}
    needs = [node.needs for node in graph.nodes]
    for place in edges.sorted_places(needs, [node.feeds for node in graph.nodes]):
        step = graph.nodes[place].step
        took = 0 if step is None else known.get(step.id, 0)
        ends[place] = took + max((ends[need] for need in needs[place]), default=0)
    return Forecast(known, max(ends.values()))


def _duration(simulated: SimulatedStep, means: Mapping[Kind, int]) -> int | None:
    step = simulated.step
    if step.kind != "task":
        # How long people and other workflows take is nobody's guess.
        return 0
    mean = means.get(kind(step))
    if mean is None:
        return None
    if simulated.items is None:
        return mean
    return mean * ceil(simulated.items / (step.max_parallel or MAX_PARALLEL))

"""Gathers what is shown of an execution: its steps, what ran for them, and the values that are short enough."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from agent_orchestration.v1 import executions_pb2
from ao_server.api import execution_messages, messages
from ao_server.engine.workflows import work
from ao_server.engine.workflows.definition import Graph, Step
from ao_server.engine.workflows.evaluation import spliced
from ao_server.engine.workflows.graphs import Graphs, VersionKey
from ao_server.engine.workflows.happenings import ExecutionKey
from ao_server.engine.workflows.planner import MAX_OUTPUT_BYTES
from ao_server.errors import NotFound
from ao_server.store import execution_values, executions, rows, workflows
from ao_server.store.execution_values import Source
from ao_server.store.reader import Reader
from ao_server.store.workflow_tables import PARAMETERS

# Bytes of an input or an output of a step in a whole execution, and of all of them.
INLINE_VALUE_BYTES: Final = 16 * 1024
INLINE_VALUES_BYTES: Final = 4 * 1024 * 1024

_Steps = list[tuple[rows.ExecutionStep, Step]]


class ExecutionDetails:
    """Reads executions as they are shown alone."""

    def __init__(self, reader: Reader, graphs: Graphs) -> None:
        self._reader = reader
        self._graphs = graphs

    async def graph(self, execution: rows.Execution) -> Graph:
        """The steps that it began with."""
        return await self._graph(VersionKey(execution.project_id, execution.workflow_id, execution.version))

    async def newest_graph(self, workflow: rows.Workflow) -> Graph:
        """The steps that it has now."""
        return await self._graph(VersionKey(workflow.project_id, workflow.id, workflow.version))

    async def steps(self, execution: rows.Execution, graph: Graph) -> Sequence[rows.ExecutionStep]:
        """All of its steps by their places, joins among them."""
        found = await executions.steps(self._reader, execution.project_id, execution.id)
        # One that is postponed has none of them yet.
        return found or work.steps(ExecutionKey(execution.project_id, execution.id), graph)

    async def _graph(self, key: VersionKey) -> Graph:
        graph = self._graphs.get(key)
        if graph is not None:
            return graph
        version = await workflows.version(self._reader, *key)
        if version is None:
            raise LookupError(f"{key.workflow_id} has no version {key.version}")
        return await asyncio.to_thread(self._graphs.add, key, version.steps)

    async def whole(self, execution: rows.Execution) -> executions_pb2.Execution:
        """An execution with all of its steps."""
        graph = await self.graph(execution)
        found = await self.steps(execution, graph)
        steps = [(row, step) for row in found if (step := graph.nodes[row.place].step) is not None]
        ran = await executions.ran(self._reader, execution.project_id, execution.id, _last_ids(steps))
        sources = _sources(steps)
        sizes = await execution_values.sizes(self._reader, execution.project_id, sources)
        inline = _inline(sources, sizes)
        sinks = _sinks(graph, steps, sizes) if execution.status == "completed" else None
        parameters = execution_values.value(execution.id, PARAMETERS)
        wanted = {parameters, *inline, *(sinks or {}).values()}
        texts = await execution_values.texts(self._reader, execution.project_id, wanted)
        message = messages.listed_execution(execution)
        message.parameters = texts[parameters]
        if sinks is not None:
            message.output = spliced({step_id: texts[source] for step_id, source in sinks.items()})
        shown, omitted = {source: texts[source] for source in inline}, sizes.keys() - inline
        for row, step in steps:
            each = execution_messages.execution_step(row, step, ran)
            execution_messages.add_values(each, row, step, shown, omitted)
            message.steps.append(each)
        return message

    async def step(self, execution: rows.Execution, step_id: str) -> executions_pb2.ExecutionStep:
        """A step with its whole input and output. NotFound."""
        graph = await self.graph(execution)
        place, definition = place_of(graph, step_id)
        project_id = execution.project_id
        row = await executions.step(self._reader, project_id, execution.id, place)
        if row is None:
            row = work.steps(ExecutionKey(project_id, execution.id), graph)[place]
        steps = [(row, definition)]
        ran = await executions.ran(self._reader, project_id, execution.id, _last_ids(steps), step_id=step_id)
        texts = await execution_values.texts(self._reader, project_id, _sources(steps))
        message = execution_messages.execution_step(row, definition, ran)
        execution_messages.add_values(message, row, definition, texts)
        return message


def place_of(graph: Graph, step_id: str) -> tuple[int, Step]:
    """Where a step stands, and the step. NotFound."""
    place = graph.places.get(step_id)
    definition = None if place is None else graph.nodes[place].step
    if place is None or definition is None:
        raise NotFound("there is no such step")
    return place, definition


def _last_ids(steps: _Steps) -> list[str]:
    return [row.last_id for row, step in steps if step.kind == "task" and row.last_id is not None]


def _sources(steps: _Steps) -> list[Source]:
    """Where inputs and outputs may stand, in the order of the steps."""
    found: list[Source] = []
    for row, step in steps:
        found.append(execution_messages.input_of(row, step))
        output = execution_messages.output_of(row, step)
        if output is not None:
            found.append(output)
    return found


def _inline(sources: Iterable[Source], sizes: Mapping[Source, int]) -> set[Source]:
    """Those that are short enough, as many as there is room for."""
    inline: set[Source] = set()
    room = INLINE_VALUES_BYTES
    for source in sources:
        size = sizes.get(source)
        if size is not None and size <= min(INLINE_VALUE_BYTES, room):
            inline.add(source)
            room -= size
    return inline


def _sinks(graph: Graph, steps: _Steps, sizes: Mapping[Source, int]) -> dict[str, Source] | None:
    """Where the outputs that nothing reads stand, by the ids of their steps; None when together they are too large."""
    sinks: dict[str, Source] = {}
    for row, step in steps:
        output = execution_messages.output_of(row, step)
        if row.place in graph.sinks and output is not None and output in sizes:
            sinks[step.id] = output
    return sinks if sum(sizes[each] for each in sinks.values()) <= MAX_OUTPUT_BYTES else None

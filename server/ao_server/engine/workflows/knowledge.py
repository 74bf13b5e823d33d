"""What a transaction knows of one execution: its graph, its rows as they are now, the values that expressions read."""

from collections.abc import Callable, Generator, Iterable
from typing import Any

from ao_server.engine.workflows import work
from ao_server.engine.workflows.definition import Graph, Step
from ao_server.engine.workflows.evaluation import Values
from ao_server.engine.workflows.graphs import Graphs, VersionKey
from ao_server.engine.workflows.happenings import ExecutionKey
from ao_server.store import rows
from ao_server.store.changes import Changes, Found, Key, Operation

Operations = Generator[Operation[Any], None, None]


class Knowledge:
    """It grows as more is asked for. Steps are by place; `None` stands for an output that a step does not have."""

    graph: Graph
    execution: rows.Execution

    def __init__(self, key: ExecutionKey, graphs: Graphs) -> None:
        self.key = key
        self.steps: dict[int, rows.ExecutionStep] = {}
        self._graphs = graphs
        self._parameters: str | None = None
        self._outputs: dict[int, str | None] = {}
        self._values: dict[frozenset[int], Values] = {}

    @property
    def execution_key(self) -> Key:
        """Of the execution's row."""
        return Key(rows.Execution, tuple(self.key))

    def step_key(self, place: int) -> Key:
        """Of a step's row."""
        return Key(rows.ExecutionStep, (*self.key, place))

    def missing(self, places: Iterable[int]) -> list[int]:
        """Those of the places whose steps are not known yet."""
        return sorted({place for place in places if place not in self.steps})

    def definition(self, place: int) -> Step:
        """The step in this place, which is no join."""
        step = self.graph.nodes[place].step
        assert step is not None
        return step

    def open(self) -> Operations:
        """Finds the execution and its graph."""

        def take(found: Found) -> None:
            self.execution = _there(found.get(rows.Execution, *self.key))

        yield reading([self.execution_key], take)
        version = VersionKey(self.key.project_id, self.execution.workflow_id, self.execution.version)
        graph = self._graphs.get(version)
        if graph is not None:
            self.graph = graph
            return

        def compile_it(found: Found) -> None:
            self.graph = self._graphs.add(version, _there(found.get(rows.WorkflowVersion, *version)).steps)

        yield reading([Key(rows.WorkflowVersion, tuple(version))], compile_it)

    def begin(self) -> None:
        """It is new: so are its steps."""
        self.steps = {row.place: row for row in work.steps(self.key, self.graph)}

    def take_steps(self, places: Iterable[int], found: Found) -> None:
        """Takes in steps that were asked for."""
        for place in places:
            self.steps[place] = _there(found.get(rows.ExecutionStep, *self.key, place))

    def load(self, places: Iterable[int]) -> Operations:
        """Reads the outputs of these steps, and the parameters."""
        wanted = [place for place in places if place not in self._outputs]
        if missing := self.missing(wanted):
            yield reading(list(map(self.step_key, missing)), lambda found: self.take_steps(missing, found))
        keys = {place: key for place in wanted if (key := self._output_key(place)) is not None}
        parameters = Key(rows.ExecutionValue, (*self.key, work.PARAMETERS, 0))
        if not keys and self._parameters is not None:
            return

        def take(found: Found) -> None:
            self._parameters = _there(found.get(rows.ExecutionValue, *parameters.values)).value
            for place, key in keys.items():
                row = found.get(key.row, *key.values)
                self._outputs[place] = None if row is None else _text(row)

        yield reading([parameters, *keys.values()], take)

    def values(self, places: Iterable[int]) -> Values:
        """What was loaded, for expressions over these steps."""
        among = frozenset(places)
        if among not in self._values:
            assert self._parameters is not None
            given = {self.definition(place).id: text for place in sorted(among) if (text := self._outputs.get(place))}
            self._values[among] = Values(self._parameters, given)
        return self._values[among]

    def _output_key(self, place: int) -> Key | None:
        """Where the output of a step stands, None when it has none."""
        row, step = self.steps[place], self.definition(place)
        if row.status not in ("completed", "failed") or (row.status == "failed" and step.for_each is None):
            return None
        if step.for_each is not None or step.kind == "approval":
            return Key(rows.ExecutionValue, (*self.key, work.OUTPUT, place))
        assert row.last_id is not None
        if step.kind == "workflow":
            return Key(rows.ExecutionValue, (self.key.project_id, row.last_id, work.RESULT, 0))
        return Key(rows.Result, (self.key.project_id, row.last_id))


def reading(keys: list[Key], take: Callable[[Found], None]) -> Operation[None]:
    """An operation that changes nothing."""

    def decide(found: Found, now: int) -> Changes[None]:
        take(found)
        return Changes(None)

    return Operation(decide, keys=keys)


def _text(row: rows.ExecutionValue | rows.Result) -> str:
    return row.value if isinstance(row, rows.ExecutionValue) else row.result


def _there(row: Any) -> Any:
    if row is None:
        raise LookupError("a row of an execution is missing")
    return row

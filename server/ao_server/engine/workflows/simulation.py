"""What would happen: the planner over assumed outcomes, with expressions evaluated for real. Nothing is kept."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ao_server.engine.transitions import Failure
from ao_server.engine.workflows import evaluation, moves, planner, work
from ao_server.engine.workflows.budgets import MAX_COMPUTED
from ao_server.engine.workflows.definition import Graph, Node, Step
from ao_server.engine.workflows.evaluation import Batch, CannotBegin, Values
from ao_server.engine.workflows.expressions import Expression
from ao_server.engine.workflows.happenings import ExecutionKey
from ao_server.engine.workflows.interpreter import Budget
from ao_server.errors import Invalid
from ao_server.store import rows

# Of all steps together.
MAX_ITEMS: Final = 100_000
# Nodes of expressions times bytes that they read: some seconds.
MAX_WORK: Final = 8 * evaluation.MAX_WORK
# The inputs of so many items of a step are evaluated, the first ones; the others are taken to be like them.
INPUTS: Final = 10
_NO_OUTPUT: Final = "{}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a step is assumed to end. `output`: the text of what it, or each of its items, returns; None for {}."""

    fails: bool = False
    output: str | None = None


@dataclass(frozen=True, slots=True)
class SimulatedStep:
    """`group`: the one that it begins in, from 1; None where it does not begin. `items`: None without a list."""

    step: Step
    status: str
    group: int | None
    items: int | None
    error: Failure | None


@dataclass(frozen=True, slots=True)
class Simulation:
    """Steps in the order in which they begin, those that do not come last. The other steps are by their ids."""

    status: str
    error: Failure | None
    steps: Sequence[SimulatedStep]
    groups: Sequence[Sequence[str]]
    skipped: Sequence[str]
    compensation: Sequence[str]


def simulate(
    graph: Graph, parameters: str, outcomes: Mapping[str, Outcome], archived: Collection[str] = ()
) -> Simulation:
    """Plays an execution through, group by group: all steps that run at the same time end together.

    `parameters` is the text of a JSON object. `outcomes` by the ids of steps: one that is not named completes with the
    output {}. A list that reads the output of a step which was given none, and so is no list, has one item. Items of a
    step all end alike; whether an input can be evaluated is tried for the first of them. `archived`: ids of workflows
    that steps cannot execute. Raises Invalid when it is too much to play through.
    """
    play = _Play(graph, parameters, outcomes, archived)
    play.run()
    return play.told()


@dataclass(slots=True)
class _Play:
    graph: Graph
    parameters: str
    outcomes: Mapping[str, Outcome]
    archived: Collection[str]
    execution: rows.Execution = field(init=False)
    steps: dict[int, rows.ExecutionStep] = field(init=False)
    outputs: dict[int, str] = field(default_factory=dict[int, str])
    lists: dict[int, tuple[Values, list[Any]]] = field(default_factory=dict[int, tuple[Values, list[Any]]])
    groups: list[list[int]] = field(default_factory=list[list[int]])
    skipped: list[int] = field(default_factory=list[int])
    undone: list[int] = field(default_factory=list[int])
    waiting: list[moves.Event] = field(default_factory=list[moves.Event])
    items: int = 0
    work: int = 0
    computed: Budget = field(default_factory=lambda: Budget(MAX_COMPUTED))

    def __post_init__(self) -> None:
        self.execution = rows.Execution(project_id="", id="", workflow_id="", version=1, priority=0, created_at=0)
        self.steps = {row.place: row for row in work.steps(ExecutionKey("", ""), self.graph)}

    def run(self) -> None:
        """Each round is what runs at the same time."""
        events: list[moves.Event] = [moves.Started()]
        while events:
            self.groups.append([])
            self._settle(events)
            events, self.waiting = self.waiting, []

    def _settle(self, events: list[moves.Event]) -> None:
        """Does all that needs no waiting."""
        for event in events:
            if isinstance(event, moves.Completed | moves.Failed) and not self._awaits(event.place):
                continue
            after = planner.step(self.graph, moves.State(self.execution, self.steps), event, 0)
            self.execution = after.execution
            self.steps.update(after.steps)
            for command in after.commands:
                events.extend(self._do(command))

    def _spend(self, values: Values, *expressions: Expression | None) -> None:
        self.work += values.size * (1 + sum(each.size for each in expressions if each is not None))
        if self.work > MAX_WORK or self.computed.visits < 0:
            raise Invalid("the expressions read too much to be simulated")

    def _awaits(self, place: int) -> bool:
        return bool(self.steps[place].running) or self.steps[place].compensation == "running"

    def _do(self, command: moves.Command) -> Iterable[moves.Event]:
        match command:
            case moves.Look(place):
                return [self._look(self.graph.nodes[place])]
            case moves.Run(place, start, count):
                return self._begin(place, start, count)
            case moves.Gather(place):
                self.outputs[place] = self._gathered(place)
            case moves.Undo(place):
                self.undone.append(place)
                return [moves.UndoBegun(place), moves.Completed(place)]
            case moves.Close():
                return [moves.Closed()]
            case moves.StopWaiting() | moves.Stop():
                # What runs at the same time has begun already.
                pass
        return []

    def _look(self, node: Node) -> moves.Looked:
        values = self._values(node.place)
        self._spend(values, node.condition, node.for_each)
        looked, items = evaluation.look(node, values, self.computed)
        if looked.failure is not None and looked.failure.code == "not_a_list" and self._reads_unknown(node):
            looked = moves.Looked(node.place, 1)
            items.append({})
        if looked.is_skipped:
            self.skipped.append(node.place)
        elif looked.failure is not None:
            self._join_group(node.place)
        self.lists[node.place] = values, items
        return looked

    def _reads_unknown(self, node: Node) -> bool:
        """Whether its list comes from a step whose output nobody has assumed."""
        read = node.for_each.steps if node.for_each is not None else ()
        assumed = {name for name, outcome in self.outcomes.items() if outcome.output is not None}
        return any(name not in assumed for name in read)

    def _values(self, place: int) -> Values:
        read = sorted(self.graph.reads(place))
        return Values(
            self.parameters, {self._step(each).id: self.outputs[each] for each in read if each in self.outputs}
        )

    def _begin(self, place: int, start: int, count: int) -> Iterable[moves.Event]:
        """Items that cannot begin fail at once, the others with the group."""
        self._join_group(place)
        self.items += count
        if self.items > MAX_ITEMS:
            raise Invalid(f"there are more than {MAX_ITEMS:,} items to be simulated")
        outcome = self._outcome(place)
        failed: list[moves.Event] = []
        for index in range(start, start + count):
            try:
                self._check_executed(self._step(place))
                self._evaluate_input(self.graph.nodes[place], index)
            except CannotBegin as refusal:
                failed.append(moves.Failed(place, refusal.failure))
                continue
            if outcome.fails:
                code = "rejected" if self._step(place).kind == "approval" else "assumed"
                self.waiting.append(moves.Failed(place, Failure(code, "assumed to fail")))
            else:
                output = outcome.output or _NO_OUTPUT
                self.waiting.append(moves.Completed(place, len(output.encode())))
                if self.graph.nodes[place].for_each is None:
                    self.outputs[place] = output
        return failed

    def _check_executed(self, step: Step) -> None:
        if step.workflow_id in self.archived:
            raise CannotBegin("workflow_archived", f"the workflow {step.workflow_id} is archived")

    def _evaluate_input(self, node: Node, index: int) -> None:
        if index >= INPUTS:
            return
        values, items = self.lists[node.place]
        self._spend(values, node.input)
        if self._step(node.place).kind == "approval":
            evaluation.approval_input(node, values, self.computed)
        elif node.for_each is None:
            if self._step(node.place).kind == "task":
                evaluation.payload(self.graph, node, values, self.computed)
            else:
                evaluation.child_parameters(node, values, Batch(self.computed))
        elif self._step(node.place).kind == "task":
            evaluation.item_payload(node, values, items[index], index, Batch(self.computed))
        else:
            evaluation.child_parameters(node, values, Batch(self.computed), items[index], index)

    def _gathered(self, place: int) -> str:
        row, outcome = self.steps[place], self._outcome(place)
        output = "null" if outcome.fails else outcome.output or _NO_OUTPUT
        return "[" + ",".join([output] * (row.items or 0)) + "]"

    def _join_group(self, place: int) -> None:
        if all(place not in group for group in self.groups):
            self.groups[-1].append(place)

    def _outcome(self, place: int) -> Outcome:
        return self.outcomes.get(self._step(place).id, Outcome())

    def _step(self, place: int) -> Step:
        step = self.graph.nodes[place].step
        assert step is not None
        return step

    def told(self) -> Simulation:
        """What has happened."""
        groups = [group for group in self.groups if group]
        group_of = {place: number for number, group in enumerate(groups, 1) for place in group}
        order = [*group_of, *(place for place in self.graph.places.values() if place not in group_of)]
        it = self.execution
        return Simulation(
            it.status,
            _failure(it),
            [self._told(place, group_of.get(place)) for place in order],
            [[self._step(place).id for place in group] for group in groups],
            [self._step(place).id for place in self.skipped],
            [self._step(place).id for place in self.undone],
        )

    def _told(self, place: int, group: int | None) -> SimulatedStep:
        row = self.steps[place]
        return SimulatedStep(self._step(place), row.status, group, row.items, _failure(row))


def _failure(row: rows.Execution | rows.ExecutionStep) -> Failure | None:
    return None if row.error_code is None else Failure(row.error_code, row.error_message or "")

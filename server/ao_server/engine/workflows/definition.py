"""A workflow's definition: the graph that its steps are, and all that is wrong with them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from ao_server.engine.workflows import edges, expressions
from ao_server.engine.workflows.expressions import BadExpression, Expression
from ao_server.engine.workflows.steps import Compensation, Step, decode, encode, misfits
from ao_server.errors import FieldProblem, Invalid

__all__ = ["Compensation", "Graph", "Node", "Step", "compiled", "decode", "encode"]

MAX_STEPS: Final = 1_000
MAX_EDGES: Final = 10_000
# Characters of all expressions together: each costs some 3 µs to parse, and 150 bytes while the graph lives.
MAX_EXPRESSIONS: Final = 200_000
SHOWN_PROBLEMS: Final = 100
# How many steps of a long cycle are named.
_SHOWN: Final = 20


@dataclass(frozen=True, slots=True)
class Node:
    """A step in its place, or a join: a hidden place without a step, which ends when all that it needs has ended."""

    place: int
    step: Step | None
    needs: tuple[int, ...]
    feeds: tuple[int, ...]
    condition: Expression | None = None
    for_each: Expression | None = None
    input: Expression | None = None
    undo_input: Expression | None = None


@dataclass(frozen=True, slots=True)
class Graph:
    """Steps in the order of their list, the joins behind them. `places`: of the steps, by id."""

    nodes: list[Node]
    places: dict[str, int]
    sinks: tuple[int, ...]

    def touched(self, place: int) -> list[int]:
        """What the end of this place can make ready: itself, what it feeds, and what the joins among these feed."""
        found = [place, *self.nodes[place].feeds]
        for each in found[1:]:
            if self.nodes[each].step is None:
                found += self.nodes[each].feeds
        return found

    def waits_for(self, place: int) -> list[int]:
        """The steps directly in front of this place, seen through joins."""
        found: list[int] = []
        for each in self.nodes[place].needs:
            found += [each] if self.nodes[each].step is not None else self.nodes[each].needs
        return found

    def reads(self, place: int) -> frozenset[int]:
        """The places whose outputs are needed to begin this one."""
        node = self.nodes[place]
        read = {
            self.places[step]
            for expression in (node.condition, node.for_each, node.input)
            if expression is not None
            for step in expression.steps
        }
        if node.step is not None and node.step.kind == "task" and node.input is None and node.for_each is None:
            # The default payload shows what came before.
            read.update(self.waits_for(place))
        return frozenset(read)


def compiled(steps: Sequence[Step]) -> Graph:
    """The graph of these steps. Raises Invalid with all that is wrong; each message begins with the step's id."""
    _check_size(steps)
    problems = _Problems(steps)
    for place, step in enumerate(steps):
        for name, message in misfits(step):
            problems.add(place, name, message)
    places = _places(steps, problems)
    needs = _needs(steps, places, problems)
    feeds = edges.feeds_of(needs)
    reader = _Reader(places, _ancestors(steps, needs, feeds, problems), problems)
    nodes = [_node(reader, place, step, needs[place], feeds[place]) for place, step in enumerate(steps)]
    problems.raise_any()
    nodes += [Node(place, None, needs[place], feeds[place]) for place in range(len(steps), len(needs))]
    return Graph(nodes, places, tuple(node.place for node in nodes if not node.feeds))


def _check_size(steps: Sequence[Step]) -> None:
    if not 1 <= len(steps) <= MAX_STEPS:
        raise Invalid.field("steps", f"there are {len(steps):,}, 1 to {MAX_STEPS:,} are allowed")
    count = sum(len(step.depends_on or ()) for step in steps)
    if count > MAX_EDGES:
        raise Invalid.field("steps", f"there are {count:,} dependencies, at most {MAX_EDGES:,} are allowed")
    length = sum(len(text or "") for step in steps for text in _texts(step))
    if length > MAX_EXPRESSIONS:
        raise Invalid.field("steps", f"expressions have {length:,} characters, {MAX_EXPRESSIONS:,} in all are allowed")


def _texts(step: Step) -> tuple[str | None, ...]:
    return step.condition, step.for_each, step.input, _undo_input(step)


def _undo_input(step: Step) -> str | None:
    return None if step.compensate is None else step.compensate.input


@dataclass(slots=True)
class _Problems:
    steps: Sequence[Step]
    found: list[tuple[int, FieldProblem]] = field(default_factory=list[tuple[int, FieldProblem]])

    def add(self, place: int, name: str, message: str) -> None:
        shown = f"step '{self.steps[place].id[:64]}': {message}"
        self.found.append((place, FieldProblem(f"steps[{place}].{name}", shown)))

    def raise_any(self) -> None:
        """Invalid with what was found, if any, by place: the first of it."""
        details = [problem for _, problem in sorted(self.found, key=lambda each: each[0])][:SHOWN_PROBLEMS]
        if details:
            raise Invalid.fields(details)


def _places(steps: Sequence[Step], problems: _Problems) -> dict[str, int]:
    places: dict[str, int] = {}
    for place, step in enumerate(steps):
        if places.setdefault(step.id, place) != place:
            problems.add(place, "id", f"steps[{places[step.id]}] has the same id")
    return places


def _needs(steps: Sequence[Step], places: dict[str, int], problems: _Problems) -> edges.Needs:
    """By dependencies if any step gives them, else by order."""
    if all(step.depends_on is None for step in steps):
        return edges.in_sequence([place + 1 if step.order is None else step.order for place, step in enumerate(steps)])
    return [tuple(_dependencies(place, step, places, problems)) for place, step in enumerate(steps)]


def _dependencies(place: int, step: Step, places: dict[str, int], problems: _Problems) -> Iterator[int]:
    seen: set[str] = set()
    for name in step.depends_on or ():
        if name in seen:
            problems.add(place, "depends_on", f"names '{name[:64]}' twice")
        elif name == step.id:
            problems.add(place, "depends_on", "names the step itself")
        elif name not in places:
            problems.add(place, "depends_on", f"no step has the id '{name[:64]}'")
        else:
            yield places[name]
        seen.add(name)


def _ancestors(steps: Sequence[Step], needs: edges.Needs, feeds: edges.Needs, problems: _Problems) -> list[int]:
    """For each place, a bit for each that ends before it; all bits where a cycle leaves that open."""
    in_order = edges.sorted_places(needs, feeds)
    if len(in_order) == len(needs):
        return edges.ancestors(needs, in_order)
    found = edges.cycle(needs, set(range(len(needs))).difference(in_order))
    names = [f"'{steps[each].id[:64]}'" for each in found]
    shown = [*names[:_SHOWN], f"{len(names) - _SHOWN} more"] if len(names) > _SHOWN else names
    problems.add(found[0], "depends_on", f"is in a cycle: {' needs '.join([*shown, names[0]])}")
    return [-1] * len(needs)


@dataclass(slots=True)
class _Reader:
    """Parses expressions and finds what they may not read."""

    places: dict[str, int]
    ancestors: list[int]
    problems: _Problems

    def read(
        self, place: int, name: str, text: str | None, *, may_read_item: bool = False, may_read_own: bool = False
    ) -> Expression | None:
        if text is None:
            return None
        try:
            expression = expressions.parse(text)
        except BadExpression as error:
            self.problems.add(place, name, str(error))
            return None
        if expression.reads_item and not may_read_item:
            self.problems.add(place, name, "`item` and `index` are known only in the `input` of a step with for_each")
        for step in sorted(expression.steps):
            wrong = self._unreadable(place, step, may_read_own)
            if wrong:
                self.problems.add(place, name, wrong)
        return expression

    def _unreadable(self, place: int, step: str, may_read_own: bool) -> str:
        read = self.places.get(step)
        if read is None:
            return f"reads the output of '{step[:64]}', and no step has this id"
        if read == place:
            return "" if may_read_own else "reads the step's own output"
        if not self.ancestors[place] >> read & 1:
            return f"reads the output of '{step[:64]}', which does not have to end before this step"
        return ""


def _node(reader: _Reader, place: int, step: Step, needs: tuple[int, ...], feeds: tuple[int, ...]) -> Node:
    return Node(
        place,
        step,
        needs,
        feeds,
        condition=reader.read(place, "condition", step.condition),
        for_each=reader.read(place, "for_each", step.for_each),
        input=reader.read(place, "input", step.input, may_read_item=step.for_each is not None),
        undo_input=reader.read(place, "compensate.input", _undo_input(step), may_read_own=True),
    )

"""What expressions come to: whether a step runs, over which items, and what its task, child or undoing is given."""

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from ao_server.engine.transitions import Failure
from ao_server.engine.workflows import expressions, moves
from ao_server.engine.workflows.definition import Graph, Node
from ao_server.engine.workflows.expressions import BadExpression, Expression
from ao_server.engine.workflows.interpreter import CHARACTERS, Budget, TooCostly

MAX_INPUT_BYTES: Final = 1024 * 1024
MAX_ITEMS: Final = 100_000
# Of the items of a step that begin in one transaction.
MAX_BATCH_BYTES: Final = 128 * 1024 * 1024
# Characters that an expression may go through and give.
MAX_WORK: Final = 64 * 1024 * 1024

# Made once: `json.dumps` makes one for each value.
_JSON: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)
_KINDS: Final = ((bool, "a boolean"), (int | float, "a number"), (str, "a text"), (list, "a list"), (dict, "an object"))


class CannotBegin(Exception):
    """A step, or an item of it, cannot begin: why it fails."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.failure = Failure(code, message, is_final=True)


class Values:
    """What the expressions of an execution read: texts of JSON, decoded when first asked for.

    `outputs` by the ids of steps; a step without one, which was skipped or has failed, is left out.
    """

    def __init__(self, parameters: str, outputs: Mapping[str, str]) -> None:
        self.parameters = parameters
        self.outputs = outputs
        self.size = len(parameters) + sum(map(len, outputs.values()))
        self._scope: dict[str, Any] | None = None
        self._affordable: set[str] = set()

    def evaluate(self, expression: Expression, budget: Budget, **more: Any) -> Any:
        """What the expression gives; CannotBegin when that is an error. `more`: item and index. `budget`: of all that
        is computed with it.
        """
        if expression.text not in self._affordable and expression.cost(self.size) > MAX_WORK:
            raise self._too_costly(expression)
        self._affordable.add(expression.text)
        if self._scope is None:
            steps = {name: {"output": json.loads(text)} for name, text in self.outputs.items()}
            self._scope = {"parameters": json.loads(self.parameters), "steps": steps}
        try:
            return expression.evaluate({**self._scope, **more} if more else self._scope, budget)
        except TooCostly:
            with_what = " for so many items at once (`max_parallel`)" if more else ""
            if budget.whole is not None and budget.whole.visits < 0:
                with_what = ", with all else that is computed at the same moment"
            raise self._too_costly(expression, with_what) from None
        except BadExpression as error:
            raise CannotBegin("invalid_expression", f"{_shown(expression)}: {error}") from None

    def _too_costly(self, expression: Expression, with_what: str = "") -> CannotBegin:
        problem = f"{_shown(expression)} is too much to compute over {self.size} characters{with_what}"
        return CannotBegin("expression_too_costly", problem)


class Batch:
    """What the inputs of items that begin together may cost, in computing and in bytes."""

    def __init__(self, whole: Budget) -> None:
        """`whole`: of all that is computed at the same moment."""
        self.budget = Budget(whole=whole)
        self._bytes = MAX_BATCH_BYTES

    def take(self, payload: str) -> str:
        """The same text. CannotBegin when they are too much together."""
        self._bytes -= len(payload)
        if self._bytes < 0:
            # Nothing more is computed for the others.
            self.budget.visits = 0
            problem = f"the inputs of items that begin together (`max_parallel`) are more than {MAX_BATCH_BYTES} bytes"
            raise CannotBegin("input_too_large", problem)
        return payload


def look(node: Node, values: Values, whole: Budget) -> tuple[moves.Looked, list[Any]]:
    """Whether the step runs, and its items, none for a step without. `whole`: of all that is computed at the same
    moment, here and below.
    """
    try:
        if node.condition is not None and not expressions.is_true(_value(node.condition, values, whole)):
            return moves.Looked(node.place, is_skipped=True), []
        if node.for_each is None:
            return moves.Looked(node.place), []
        items = items_of(node.for_each, values, whole)
        return moves.Looked(node.place, len(items)), items
    except CannotBegin as refusal:
        return moves.Looked(node.place, failure=refusal.failure), []


def items_of(for_each: Expression, values: Values, whole: Budget) -> list[Any]:
    """The list that a step runs over. CannotBegin when it is none."""
    items = _value(for_each, values, whole)
    if not isinstance(items, list):
        raise CannotBegin("not_a_list", f"{_shown(for_each)} must give a list, not {_kind(items)}")
    if len(items) > MAX_ITEMS:  # pyright: ignore[reportUnknownArgumentType] - of whatever was sent
        raise CannotBegin("too_many_items", f"{_shown(for_each)} gives more than {MAX_ITEMS:,} items")
    return items  # pyright: ignore[reportUnknownVariableType] - of whatever was sent


def payload(graph: Graph, node: Node, values: Values, whole: Budget) -> str:
    """What the one task of a step is given."""
    if node.input is not None:
        return _object(node.input, values, Budget(whole=whole))
    previous = [graph.nodes[place].step for place in graph.waits_for(node.place)]
    given = {step.id: values.outputs[step.id] for step in previous if step is not None and step.id in values.outputs}
    return _bounded(f'{{"parameters":{values.parameters},"previous":{spliced(given)}}}')


def item_payload(node: Node, values: Values, item: Any, index: int, batch: Batch) -> str:
    """What the task of one item of a step is given. `batch`: of the items that begin with it."""
    if node.input is not None:
        return batch.take(_object(node.input, values, batch.budget, item=item, index=index))
    # No parameters: the list may well be one of them, and would be given to each of its items.
    return batch.take(_bounded(f'{{"item":{text_of(item)},"index":{index}}}'))


def child_parameters(node: Node, values: Values, batch: Batch, item: Any = None, index: int | None = None) -> str:
    """The parameters of an execution that a step begins. `batch`: of the items that begin with it."""
    if node.input is None:
        return batch.take(values.parameters)
    more = {} if index is None else {"item": item, "index": index}
    return batch.take(_object(node.input, values, batch.budget, **more))


def approval_input(node: Node, values: Values, whole: Budget) -> str | None:
    """What somebody who is to approve is shown."""
    return None if node.input is None else _object(node.input, values, Budget(whole=whole))


def undo_payload(node: Node, values: Values, whole: Budget) -> str:
    """What the task that undoes a step is given."""
    if node.undo_input is not None:
        return _object(node.undo_input, values, Budget(whole=whole))
    assert node.step is not None
    return _bounded(f'{{"parameters":{values.parameters},"output":{values.outputs.get(node.step.id, "null")}}}')


def spliced(texts: Mapping[str, str]) -> str:
    """The text of an object whose values are texts of JSON."""
    return "{" + ",".join(f"{json.dumps(name)}:{text}" for name, text in texts.items()) + "}"


def text_of(value: Any) -> str:
    """A value as JSON. CannotBegin when it has no text of JSON."""
    try:
        return _JSON.encode(value)
    except (ValueError, RecursionError):
        raise CannotBegin("invalid_input", "a number beyond the range of a double, or too deep a nesting") from None


def _value(expression: Expression, values: Values, whole: Budget) -> Any:
    return values.evaluate(expression, Budget(whole=whole))


def _object(expression: Expression, values: Values, budget: Budget, **more: Any) -> str:
    value = values.evaluate(expression, budget, **more)
    if not isinstance(value, dict):
        raise CannotBegin("invalid_input", f"{_shown(expression)} must give an object, not {_kind(value)}")
    text = text_of(value)
    if len(text) > MAX_INPUT_BYTES:
        # Written in vain, and items that begin with it would be as large.
        with suppress(TooCostly):
            budget.spend(len(text) // CHARACTERS)
    return _bounded(text)


def _bounded(text: str) -> str:
    if len(text) > MAX_INPUT_BYTES or len(text.encode()) > MAX_INPUT_BYTES:
        raise CannotBegin("input_too_large", f"the input is more than {MAX_INPUT_BYTES} bytes of JSON")
    return text


def _kind(value: Any) -> str:
    return next((name for type_, name in _KINDS if isinstance(value, type_)), "null")


def _shown(expression: Expression) -> str:
    return expression.text if len(expression.text) <= 100 else f"{expression.text[:100]}..."

"""The interpreter of JMESPath with a budget: how much one transaction may compute."""

from dataclasses import dataclass
from typing import Any, Final, cast

from jmespath.functions import Functions
from jmespath.visitor import TreeInterpreter

from ao_server.engine.workflows.costs import MAX_JOINED

# About a second. The store is not written meanwhile.
MAX_VISITS: Final = 1_000_000
# Elements that a function of the library goes through in the time of a visit, and characters.
_ELEMENTS: Final = 4
CHARACTERS: Final = 64


class TooCostly(Exception):
    """The budget is spent."""


@dataclass(slots=True)
class Budget:
    """What is left of it: visits of nodes, once for each element that they are visited for. `whole`: the budget that
    this one is a part of.
    """

    visits: int = MAX_VISITS
    whole: "Budget | None" = None

    def spend(self, visits: int) -> None:
        """Takes so many. TooCostly when there are not as many left."""
        self.visits -= visits
        if self.whole is not None:
            self.whole.spend(visits)
        if self.visits < 0:
            raise TooCostly


class Interpreter(TreeInterpreter):
    """Counts as it goes."""

    def __init__(self, budget: Budget) -> None:
        super().__init__()
        self._budget = budget
        self._library: Any = Functions()

    def visit(self, node: Any, *args: Any, **kwargs: Any) -> Any:
        """The value of a node."""
        self._budget.spend(1)
        return super().visit(node, *args, **kwargs)

    def visit_flatten(self, node: Any, value: Any) -> Any:
        """Lists within a list as one."""
        found = super().visit_flatten(node, value)
        self._budget.spend(_length(found))
        return found

    def visit_function_expression(self, node: Any, value: Any) -> Any:
        """Calls a function."""
        given = [self.visit(child, value) for child in node["children"]]
        self._budget.spend(sum(map(_length, given)))
        if node["value"] == "join":
            _check_joined(*given)
        return self._library.call_function(node["value"], given)


def _length(value: Any) -> int:
    match value:
        case list():
            return len(cast(list[Any], value)) // _ELEMENTS
        case str():
            return len(value) // CHARACTERS
        case _:
            return 0


def _check_joined(glue: Any, texts: Any) -> None:
    if isinstance(glue, str) and isinstance(texts, list) and len(glue) * len(cast(list[Any], texts)) > MAX_JOINED:
        raise TooCostly

"""How much one transaction begins and computes for an execution and those within it, which could otherwise grow without
bound: each of a thousand items begins a workflow that runs a thousand items, and so on; or a thousand steps that begin
together compute a second each.
"""

from dataclasses import dataclass, field
from typing import Final

from ao_server.engine.workflows.evaluation import CannotBegin
from ao_server.engine.workflows.happenings import ExecutionKey
from ao_server.engine.workflows.interpreter import MAX_VISITS, Budget

MAX_TOGETHER: Final = 10_000
# Of all expressions. Some seconds in which the store is not written.
MAX_COMPUTED: Final = 4 * MAX_VISITS


@dataclass(slots=True)
class _Tree:
    """An execution and those within it. `begun`: items of those within it."""

    begun: int = 0
    budget: Budget = field(default_factory=lambda: Budget(MAX_COMPUTED))


class Tally:
    """Of one transaction: executions that it has itself begun count for the one above that it has not. The writer's
    thread owns it.
    """

    def __init__(self) -> None:
        self._below: dict[ExecutionKey, _Tree] = {}
        self._tops: dict[ExecutionKey, _Tree] = {}

    def begin(self) -> None:
        """A transaction begins."""
        self._below = {}
        self._tops = {}

    def add_child(self, parent: ExecutionKey, child: ExecutionKey) -> None:
        """The child has begun."""
        self._below[child] = self._tree(parent)

    def count(self, execution: ExecutionKey, items: int) -> None:
        """This execution is about to begin so many. CannotBegin when that is too much together."""
        tree = self._below.get(execution)
        if tree is None:
            return
        if tree.begun + items > MAX_TOGETHER:
            problem = f"executions within executions would begin more than {MAX_TOGETHER:,} items at once"
            raise CannotBegin("too_many_at_once", problem)
        tree.begun += items

    def budget(self, execution: ExecutionKey) -> Budget:
        """What is left to compute."""
        return self._tree(execution).budget

    def _tree(self, execution: ExecutionKey) -> _Tree:
        tree = self._below.get(execution) or self._tops.get(execution)
        if tree is None:
            tree = self._tops[execution] = _Tree()
        return tree

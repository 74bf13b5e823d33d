"""How much begins in one transaction through executions within executions, which could otherwise grow without bound:
each of a thousand items begins a workflow that runs a thousand items, and so on.
"""

from typing import Final

from ao_server.engine.workflows.evaluation import CannotBegin
from ao_server.engine.workflows.happenings import ExecutionKey

MAX_TOGETHER: Final = 10_000


class Tally:
    """Of one transaction: what is begun by executions that it has itself begun, for all together that stand below one
    that it has not. The writer's thread owns it.
    """

    def __init__(self) -> None:
        self._below: dict[ExecutionKey, list[int]] = {}
        self._tops: dict[ExecutionKey, list[int]] = {}

    def begin(self) -> None:
        """A transaction begins."""
        self._below = {}
        self._tops = {}

    def add_child(self, parent: ExecutionKey, child: ExecutionKey) -> None:
        """The child has begun."""
        below = self._below.get(parent)
        self._below[child] = self._tops.setdefault(parent, [0]) if below is None else below

    def count(self, execution: ExecutionKey, items: int) -> None:
        """This execution is about to begin so many. CannotBegin when that is too much together."""
        below = self._below.get(execution)
        if below is None:
            return
        if below[0] + items > MAX_TOGETHER:
            problem = f"executions within executions would begin more than {MAX_TOGETHER:,} items at once"
            raise CannotBegin("too_many_at_once", problem)
        below[0] += items

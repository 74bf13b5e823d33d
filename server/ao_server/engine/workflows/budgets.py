"""How much one transaction computes for executions: it could otherwise be without bound, as where a thousand steps
begin together and each computes for a second.
"""

from typing import Final

from ao_server.engine.workflows.happenings import ExecutionKey
from ao_server.engine.workflows.interpreter import MAX_VISITS, Budget
from ao_server.store import rows

# Of all expressions of an execution. Some seconds in which the store is not written.
MAX_COMPUTED: Final = 4 * MAX_VISITS


class Budgets:
    """Of one transaction: an execution has the budget of the one that it is a step of. The writer's thread owns it."""

    def __init__(self) -> None:
        self._budgets: dict[ExecutionKey, Budget] = {}

    def begin(self) -> None:
        """A transaction begins."""
        self._budgets = {}

    def of(self, execution: rows.Execution) -> Budget:
        """What is left to compute for this one."""
        key = ExecutionKey(execution.project_id, execution.id)
        if key not in self._budgets:
            top = key if execution.parent_id is None else ExecutionKey(execution.project_id, execution.parent_id)
            self._budgets[key] = self._budgets.setdefault(top, Budget(MAX_COMPUTED))
        return self._budgets[key]

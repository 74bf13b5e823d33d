"""How much one transaction begins and stops for executions: others wait for it meanwhile.

Workflows run workflows, for each item of lists: left to themselves they would all begin in one transaction. Where its
room is used up, executions of steps are made, or asked to stop, but carried on in a later one (see `postponed`).
"""

from typing import Final

EXECUTIONS: Final = 50
# Tasks that cost as much as an execution.
TASKS_LIKE_ONE: Final = 20


class Room:
    """Of one transaction. The writer's thread owns it."""

    def __init__(self) -> None:
        self._left = 0

    def begin(self) -> None:
        """A transaction begins."""
        self._left = EXECUTIONS * TASKS_LIKE_ONE

    def take_tasks(self, count: int) -> None:
        """So many tasks begin; they are never refused."""
        self._left -= count

    def take_execution(self) -> bool:
        """Whether the execution of a step begins, or is stopped, in this transaction."""
        if self._left <= 0:
            return False
        self._left -= TASKS_LIKE_ONE
        return True

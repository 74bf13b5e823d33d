"""Carries executions on, within the transaction that something happened to them in.

The writer asks for `follow_ups` at the end of each transaction. That a task has ended, what its step gives, the tasks
of the steps behind it and, where a slot is free, their claims are one commit: no execution stands between two steps,
and none is carried on twice.
"""

from collections.abc import Generator, Iterable, Sequence
from functools import partial
from typing import Any

import msgspec
import structlog

from ao_server.engine import transitions
from ao_server.engine.workflows import ending, tidings
from ao_server.engine.workflows.happenings import ExecutionKey, Happening, Happenings
from ao_server.engine.workflows.knowledge import Operations
from ao_server.engine.workflows.tools import Tools
from ao_server.engine.workflows.turns import Turn
from ao_server.store import rows
from ao_server.store.batch import Batch
from ao_server.store.changes import Change, Changes, Found, Key, Operation

log = structlog.get_logger("ao_server.engine.workflows")


class Planning:
    """Lives in the writer's thread."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        # Executions that a fault of ours keeps from being carried on: the next try fails them instead.
        self._broken: set[ExecutionKey] = set()

    def follow_ups(self, batch: Batch) -> Generator[Sequence[Operation[Any]], None, None]:
        """Rounds of operations for one transaction, until nothing more follows from its changes."""
        self._tools.lists.begin()
        self._tools.room.begin()
        self._tools.budgets.begin()
        happenings = Happenings()
        while found := happenings.of(batch.changes()):
            yield from self._rounds(found)

    def observe(self, changes: Iterable[Change]) -> None:
        """The transaction was committed."""
        self._tools.lists.committed()
        self._broken.clear()

    def _rounds(self, found: dict[ExecutionKey, list[Happening]]) -> Generator[Sequence[Operation[Any]], None, None]:
        """Executions are carried on side by side: the operations of each come one after the other."""
        turns = {key: self._turn(key, happenings) for key, happenings in found.items()}
        while turns:
            operations: list[Operation[Any]] = []
            for key in list(turns):
                operation = self._next(key, turns[key])
                if operation is None:
                    del turns[key]
                else:
                    operations.append(msgspec.structs.replace(operation, failed=partial(self._break, key)))
            if operations:
                yield operations

    def _turn(self, key: ExecutionKey, happenings: Sequence[Happening]) -> Operations:
        if key in self._broken:
            return _give_up(key, self._tools)
        return Turn(key, happenings, self._tools).operations()

    def _next(self, key: ExecutionKey, turn: Operations) -> Operation[Any] | None:
        try:
            return next(turn, None)
        except Exception as error:
            self._break(key, error)
            raise

    def _break(self, key: ExecutionKey, error: Exception) -> None:
        """What an execution does fails the transaction: it is left out of it from here on."""
        log.error("execution_broken", execution_id=key.id, exc_info=error)
        self._broken.add(key)


def _give_up(key: ExecutionKey, tools: Tools) -> Operations:
    """Fails an execution that cannot be carried on, and stops what runs for it."""

    def decide(found: Found, now: int) -> Changes[None]:
        before = found.get(rows.Execution, *key)
        if before is None or before.phase == "ended":
            return Changes(None)
        after = rows.copy_of(before)
        after.status, after.phase, after.completed_at = "failed", "ended", max(now, before.created_at)
        after.error_code, after.error_message = "internal_error", "the execution could not be carried on"
        return Changes(None, [after], tidings.of_execution(before, after, now, has_begun=False))

    yield Operation(decide, keys=[Key(rows.Execution, tuple(key))])
    yield ending.stop_tasks(key, transitions.STOPPED, tools.selections, tools.stop)
    yield ending.stop_children(key, tools)

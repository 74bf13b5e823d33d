"""Rows as last committed, so that a task that is created, claimed and settled within moments is not read back."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from ao_server.store import rows

# Tables whose rows are written by nobody but the one writer and are looked at again; how many rows of each. Of tasks,
# those that are not finished. A configuration may have 64 KiB, and labels of a task 32.
LIMITS: Final = {
    rows.Agent: 500,
    rows.Execution: 1_000,
    rows.ExecutionStep: 10_000,
    rows.Task: 10_000,
    rows.Payload: 10_000,
    rows.Feed: 1_000,
}
# Characters of a payload that is kept.
LONGEST_PAYLOAD: Final = 1_000


class Recent:
    """The rows that were written last, of each table at least its limit and, but for one transaction, at most twice as
    many.
    """

    def __init__(self) -> None:
        self._young: dict[type[Any], dict[Any, Any]] = {row: {} for row in LIMITS}
        self._old: dict[type[Any], dict[Any, Any]] = {row: {} for row in LIMITS}

    def get(self, row: type[Any], key: Any) -> Any:
        """The row, None when it is not known here."""
        if row not in self._young:
            return None
        return self._young[row].get(key) or self._old[row].get(key)

    def keep(self, row: type[Any], written: Mapping[Any, Any]) -> None:
        """Takes in what was committed, by key."""
        if row not in self._young:
            return
        if row is rows.Task:
            self._forget([key for key, task in written.items() if task.completed_at is not None])
            written = {key: task for key, task in written.items() if task.completed_at is None}
        elif row is rows.Payload:
            written = {key: each for key, each in written.items() if len(each.payload) <= LONGEST_PAYLOAD}
        young = self._young[row]
        young.update(written)
        if len(young) > LIMITS[row]:
            self._old[row], self._young[row] = young, {}

    def _forget(self, finished: Iterable[Any]) -> None:
        """Nobody will claim these tasks."""
        for kept in (self._young, self._old):
            tasks, payloads = kept[rows.Task], kept[rows.Payload]
            for key in finished:
                tasks.pop(key, None)
                payloads.pop(key, None)

    def clear(self) -> None:
        """Forgets everything: what the store holds is not certain any more."""
        for kept in (*self._young.values(), *self._old.values()):
            kept.clear()

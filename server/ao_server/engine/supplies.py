"""Where a claim finds its tasks: in the store, or, where no queue held any before, among what has just arrived."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from ao_server.store import rows
from ao_server.store.changes import Found, Key, KeySelection


@dataclass(frozen=True, slots=True)
class Supply:
    """What a claim loads, and the order in which it is to look at it."""

    keys: Sequence[Key] = ()
    selection: KeySelection | None = None
    # Of what arrived: ids, in the order of dispatch.
    chosen: Sequence[tuple[str, str]] = ()

    def tasks(self, found: Found) -> Sequence[tuple[Any, ...]]:
        """The tasks in the order of dispatch, as the decisions before left them, with their payloads."""
        if self.selection is not None:
            return sorted(found.selected, key=_task_by_priority)
        return [(found.get(rows.Task, *key), found.get(rows.Payload, *key)) for key in self.chosen]


def stored(selection: KeySelection) -> Supply:
    """The tasks that a query finds."""
    return Supply(selection=selection)


def arrived(tasks: Collection[rows.Task], wanted: int, oldest: int) -> Supply | None:
    """The first `wanted` of these tasks by priority, then age, and the `oldest` ones; None when there are none.

    They need not be read back, nor even be written before they are claimed.
    """
    if not tasks:
        return None
    chosen = {task.id: task for task in sorted(tasks, key=_by_priority)[:wanted]}
    for task in sorted(tasks, key=_by_age)[:oldest]:
        chosen[task.id] = task
    ordered = sorted(chosen.values(), key=_by_priority)
    ids = [(task.project_id, task.id) for task in ordered]
    return Supply(keys=[Key(rows.Payload, each) for each in ids], chosen=ids)


def _by_priority(task: rows.Task) -> tuple[int, str]:
    return task.priority, task.id


def _task_by_priority(offered: tuple[Any, ...]) -> tuple[int, str]:
    return _by_priority(offered[0])


def _by_age(task: rows.Task) -> str:
    return task.id

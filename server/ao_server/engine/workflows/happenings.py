"""What the changes of a transaction mean for executions: what began, ended, was decided, or is wanted of them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from ao_server.store import rows
from ao_server.store.changes import Change


class ExecutionKey(NamedTuple):
    """An execution within its project."""

    project_id: str
    id: str


@dataclass(frozen=True, slots=True)
class Begun:
    """It is new."""


@dataclass(frozen=True, slots=True)
class RetryWanted:
    """It is to go on."""


@dataclass(frozen=True, slots=True)
class CancelWanted:
    """It is to stop."""


@dataclass(frozen=True, slots=True)
class TaskEnded:
    """A task of one of its steps has its outcome."""

    task: rows.Task


@dataclass(frozen=True, slots=True)
class ChildEnded:
    """An execution that one of its steps began has ended."""

    child: rows.Execution


@dataclass(frozen=True, slots=True)
class StepDecided:
    """One of its steps was approved, rejected, or has run out of time."""

    step: rows.ExecutionStep


Happening = Begun | RetryWanted | CancelWanted | TaskEnded | ChildEnded | StepDecided


class Happenings:
    """Reads the changes of one transaction, each time those that have come about since the last."""

    def __init__(self) -> None:
        self._seen: set[tuple[Any, ...]] = set()

    def of(self, changes: Iterable[Change]) -> dict[ExecutionKey, list[Happening]]:
        """What has happened to which execution."""
        found: dict[ExecutionKey, list[Happening]] = {}
        for before, after in changes:
            if type(after) is rows.Task:
                # Nearly all tasks are of no execution.
                if after.execution_id is None or after.completed_at is None:
                    continue
                if before is None or before.completed_at is None:
                    self._add(found, after.execution_id, TaskEnded(after), after, after.id)
            elif type(after) is rows.Execution:
                self._execution(found, before, after)
            elif type(after) is rows.ExecutionStep and _is_decided(after) and not _is_decided(before):
                self._add(found, after.execution_id, StepDecided(after), after, after.place)
        return found

    def _execution(
        self, found: dict[ExecutionKey, list[Happening]], before: rows.Execution | None, after: rows.Execution
    ) -> None:
        if not after.postponed:
            was_postponed = before is not None and before.postponed is not None
            if before is None or (was_postponed and not _has_begun(before)):
                self._add(found, after.id, Begun(), after)
            elif before.retries != after.retries:
                self._add(found, after.id, RetryWanted(), after)
            if after.cancel_requested_at is not None and (was_postponed or not _is_to_stop(before, after)):
                self._add(found, after.id, CancelWanted(), after)
        if after.parent_id is not None and after.phase == "ended" and (before is None or before.phase != "ended"):
            self._add(found, after.parent_id, ChildEnded(after), after, after.id)

    def _add(
        self,
        found: dict[ExecutionKey, list[Happening]],
        execution_id: str,
        happening: Happening,
        row: Any,
        *which: str | int,
    ) -> None:
        mark = (type(happening), execution_id, *which)
        if mark not in self._seen:
            self._seen.add(mark)
            found.setdefault(ExecutionKey(row.project_id, execution_id), []).append(happening)


def _has_begun(execution: rows.Execution) -> bool:
    """Whether it has steps already."""
    return execution.phase != "forward" or execution.open > 0


def _is_to_stop(before: rows.Execution | None, after: rows.Execution) -> bool:
    """Whether it was to stop before, and has not begun again since."""
    return before is not None and before.cancel_requested_at is not None and before.retries == after.retries


def _is_decided(step: rows.ExecutionStep | None) -> bool:
    return step is not None and step.decision is not None

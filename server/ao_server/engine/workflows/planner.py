"""What an execution does next: a pure fold. `step(graph, state, event, now)` gives the rows that change, and commands.

The state is the row of the execution and the rows of those steps that an event concerns: the step itself, those that it
feeds and those behind a join among them (`Graph.touched`), so an event costs the same in an execution of any size.
Whoever carries out a command answers with the next event, in the same transaction where nothing outside is waited for.

`unmet` counts the steps in front of a step that have not ended. `active` counts the steps that run and the undoing that
does: an execution ends when nothing is active any more. What can be undone is a linked list through the rows, the last
completed first: `undo_next`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from ao_server.engine.transitions import Failure
from ao_server.engine.workflows.definition import Graph, Step
from ao_server.engine.workflows.moves import (
    Cancelled,
    CancelRequested,
    Close,
    Closed,
    Command,
    Completed,
    Event,
    Failed,
    Gather,
    Look,
    Looked,
    Next,
    Retried,
    Run,
    Started,
    State,
    Stop,
    StopWaiting,
    Undo,
    UndoBegun,
)
from ao_server.store import rows

MAX_OUTPUT_BYTES: Final = 1024 * 1024
MAX_PARALLEL: Final = 100


def step(graph: Graph, state: State, event: Event, now: int) -> Next:
    """What an event leads to. The rows that were given are not changed."""
    fold = _Fold(graph, state, now)
    fold.take(event)
    fold.settle()
    return Next(fold.execution, fold.changed, fold.commands)


def can_begin(step: rows.ExecutionStep) -> int:
    """How many items of a step are left to begin."""
    return (step.items or 0) - step.kept - step.begun


@dataclass(slots=True)
class _Fold:
    """One event's worth of the fold, on copies."""

    graph: Graph
    before: State
    now: int
    execution: rows.Execution = field(init=False)
    changed: dict[int, rows.ExecutionStep] = field(default_factory=dict[int, rows.ExecutionStep])
    commands: list[Command] = field(default_factory=list[Command])

    def __post_init__(self) -> None:
        self.execution = rows.copy_of(self.before.execution)

    def take(self, event: Event) -> None:
        match event:
            case Started():
                self._start()
            case Looked():
                self._looked(event)
            case Completed(place, size):
                self._ended(place, lambda row: self._completed(row, size))
            case Failed(place, failure):
                self._ended(place, lambda row: self._failed(row, failure))
            case Cancelled(place, failure):
                self._ended(place, lambda row: self._cancelled(row, failure))
            case UndoBegun(place):
                row = self._row(place)
                row.compensation = "running"
                self.execution.undo_next = row.undo_next
            case CancelRequested():
                self._cancel()
            case Closed():
                self._close()
            case Retried():
                self._retry()

    def settle(self) -> None:
        """Where nothing is active, the next phase begins."""
        it = self.execution
        if it.active or it.phase == "ended":
            return
        if it.phase == "failing" and it.compensates:
            it.phase = "undoing"
            it.compensates = int(it.undo_next is not None)
        if it.phase == "undoing" and it.undo_next is not None:
            it.active = 1
            self.commands.append(Undo(it.undo_next))
        elif it.open:
            self.commands.append(Close())
        else:
            it.status = _ENDS[it.phase]
            it.phase = "ended"
            it.completed_at = max(self.now, it.created_at)

    def _row(self, place: int) -> rows.ExecutionStep:
        row = self.changed.get(place)
        if row is None:
            row = self.changed[place] = rows.copy_of(self.before.steps[place])
        return row

    def _definition(self, place: int) -> Step:
        definition = self.graph.nodes[place].step
        assert definition is not None
        return definition

    def _start(self) -> None:
        self.execution.open = len(self.graph.nodes)
        for node in self.graph.nodes:
            self._row(node.place).unmet = len(node.needs)
        for node in self.graph.nodes:
            if not node.needs:
                self._ready(node.place)

    def _ready(self, place: int) -> None:
        """Nothing is in front of it any more: it is about to begin."""
        self.execution.active += 1
        if self.graph.nodes[place].step is None:
            self._leave(self._row(place), "completed")
            self._feed(place)
        else:
            self.commands.append(Look(place))

    def _looked(self, looked: Looked) -> None:
        row = self._row(looked.place)
        if self.execution.phase != "forward":
            self._leave(row, "cancelled")
        elif looked.failure is not None:
            self._fail(row, looked.failure)
        elif looked.is_skipped:
            self._leave(row, "skipped")
            self._feed(looked.place)
        else:
            row.status = "running"
            row.started_at = self.now
            if looked.items is None:
                self._run(row, 1)
            else:
                row.items = looked.items
                self._settle_items(row)

    def _run(self, row: rows.ExecutionStep, count: int) -> None:
        if self._definition(row.place).kind == "approval":
            self.execution.approvals += 1
        if count > 0:
            self.commands.append(Run(row.place, row.begun, count))
            row.begun += count
            row.running += count

    def _ended(self, place: int, outcome: Callable[[rows.ExecutionStep], None]) -> None:
        row = self._row(place)
        if row.compensation != "running":
            row.running -= 1
        outcome(row)

    def _completed(self, row: rows.ExecutionStep, size: int) -> None:
        if row.compensation == "running":
            self._undone(row, "completed")
            return
        # More than too much is no number worth keeping, and may be none that the store can keep.
        row.bytes = min(row.bytes + size, MAX_OUTPUT_BYTES + 1)
        if row.items is None:
            self._complete(row)
            return
        row.completed += 1
        self._settle_items(row)

    def _failed(self, row: rows.ExecutionStep, failure: Failure) -> None:
        if row.compensation == "running":
            row.error_code, row.error_message = failure.code, failure.message
            self._undone(row, "failed")
        elif row.items is None:
            self._fail(row, failure)
        else:
            if row.error_code is None:
                row.error_code, row.error_message = failure.code, failure.message
            self._settle_items(row)

    def _cancelled(self, row: rows.ExecutionStep, failure: Failure) -> None:
        if self.execution.phase in ("forward", "undoing"):
            self._failed(row, failure)
        elif row.compensation == "running":
            self._undone(row, "cancelled")
        elif row.items is None:
            self._leave(row, "cancelled")
        else:
            # It is left to do, like those that have not begun.
            row.begun -= 1
            self._settle_items(row)

    def _settle_items(self, row: rows.ExecutionStep) -> None:
        """An item has ended, or there are none: the next begins, or the step ends with the last that runs."""
        if row.bytes > MAX_OUTPUT_BYTES and row.error_code is None:
            row.error_code = "output_too_large"
            row.error_message = f"the results are more than {MAX_OUTPUT_BYTES} bytes together"
        failure = None if row.error_code is None else Failure(row.error_code, row.error_message or "")
        if failure is not None and self._gives_up(row):
            if row.running:
                self._fail_execution(row, failure)
            else:
                self._fail(row, failure)
            return
        if self.execution.phase == "forward":
            parallel = self._definition(row.place).max_parallel or MAX_PARALLEL
            self._run(row, min(can_begin(row), parallel - row.running))
        if row.running:
            return
        if can_begin(row):
            self._leave(row, "cancelled")
            return
        self.commands.append(Gather(row.place))
        if failure is None:
            self._complete(row)
        else:
            self._fail(row, failure)

    def _gives_up(self, row: rows.ExecutionStep) -> bool:
        """Whether a failure of an item, or the size of the results, has failed the step."""
        if row.error_code is None:
            return False
        return row.bytes > MAX_OUTPUT_BYTES or self._definition(row.place).on_failure != "continue"

    def _complete(self, row: rows.ExecutionStep) -> None:
        self._leave(row, "completed")
        if self._definition(row.place).compensate is not None:
            row.undo_next, self.execution.undo_next = self.execution.undo_next, row.place
        self._feed(row.place)

    def _fail(self, row: rows.ExecutionStep, failure: Failure) -> None:
        self._leave(row, "failed")
        row.error_code, row.error_message = failure.code, failure.message
        self._fail_execution(row, failure)
        if self._definition(row.place).on_failure == "continue":
            self._feed(row.place)

    def _fail_execution(self, row: rows.ExecutionStep, failure: Failure) -> None:
        """A step has failed, though items of it may still run: nothing else begins, unless that does not matter."""
        step, it = self._definition(row.place), self.execution
        if step.on_failure == "continue":
            return
        if it.error_code is None:
            it.error_code = failure.code
            it.error_message = f"step {step.id!r}: {failure.message}"
        if step.on_failure == "compensate" and it.phase in ("forward", "failing"):
            it.compensates = 1
        if it.phase == "forward":
            it.phase = "failing"
            self.commands.append(StopWaiting())

    def _cancel(self) -> None:
        it = self.execution
        if it.phase == "failing":
            # Nothing was undone yet, and nothing will be.
            it.compensates = 0
        it.phase = "cancelling"
        it.cancel_requested_at = self.now
        self.commands.append(Stop())

    def _leave(self, row: rows.ExecutionStep, status: str) -> None:
        """The step has ended."""
        row.status = status
        row.completed_at = self.now
        row.due_at = None
        node = self.graph.nodes[row.place]
        if row.begun and node.step is not None and node.step.kind == "approval":
            self.execution.approvals -= 1
        self.execution.open -= 1
        self.execution.active -= 1

    def _feed(self, place: int) -> None:
        for fed in self.graph.nodes[place].feeds:
            row = self._row(fed)
            row.unmet -= 1
            if not row.unmet and self.execution.phase == "forward":
                self._ready(fed)

    def _undone(self, row: rows.ExecutionStep, how: str) -> None:
        row.compensation = how
        self.execution.active -= 1

    def _close(self) -> None:
        for place, row in self.before.steps.items():
            if row.status == "pending":
                closed = self._row(place)
                closed.status = "cancelled"
                closed.completed_at = self.now
                self.execution.open -= 1

    def _retry(self) -> None:
        it = self.execution
        again = {place for place, row in self.before.steps.items() if self._runs_again(row)}
        for place in again:
            self._reset(self._row(place))
        for place in again:
            self._row(place).unmet = sum(need in again for need in self.graph.nodes[place].needs)
        it.status, it.phase, it.completed_at, it.cancel_requested_at = "running", "forward", None, None
        it.error_code = it.error_message = None
        it.open, it.active, it.approvals = len(again), 0, 0
        for place in sorted(again):
            if not self._row(place).unmet and self._row(place).status == "pending":
                self._ready(place)

    def _runs_again(self, row: rows.ExecutionStep) -> bool:
        if row.status == "failed":
            # What came after one that did not matter has gone on without it.
            return self._definition(row.place).on_failure != "continue"
        # A fault of ours may have left it running, or waiting.
        return row.status not in ("completed", "skipped")

    def _reset(self, row: rows.ExecutionStep) -> None:
        row.status = "pending"
        row.kept += row.completed
        row.items = row.round_from = row.started_at = row.completed_at = row.due_at = None
        row.decision = row.error_code = row.error_message = None
        row.begun = row.running = row.completed = 0


_ENDS: Final = {"forward": "completed", "failing": "failed", "undoing": "failed", "cancelling": "cancelled"}

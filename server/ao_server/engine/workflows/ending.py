"""Ends and undoes what the planner wants ended and undone, and gathers what was completed."""

from collections.abc import Callable
from typing import Final

from ao_server.engine import transitions
from ao_server.engine.ids import Ids
from ao_server.engine.transitions import Failure
from ao_server.engine.workflows import evaluation, moves, work
from ao_server.engine.workflows.evaluation import CannotBegin
from ao_server.engine.workflows.happenings import ExecutionKey
from ao_server.engine.workflows.knowledge import Knowledge, Operations
from ao_server.engine.workflows.room import Room
from ao_server.store import rows
from ao_server.store.changes import Changes, Found, Operation
from ao_server.store.workflow_selections import WorkflowSelections

ANOTHER_FAILED: Final = Failure("cancelled", "another step of the execution has failed")


class Ending:
    """Of one execution, in one transaction. `events` takes what follows at once."""

    def __init__(
        self,
        known: Knowledge,
        room: Room,
        selections: WorkflowSelections,
        ids: Ids,
        stop: Callable[[rows.Task], None],
        events: list[moves.Event],
    ) -> None:
        """`room`: of the transaction. `stop` tells the process of a running task to stop it, after the commit."""
        self._known = known
        self._room = room
        self._selections = selections
        self._ids = ids
        self._stop = stop
        self._events = events

    def do(self, command: moves.Command) -> Operations:
        """Carries out a command."""
        match command:
            case moves.Gather(place):
                yield self._gather(place)
            case moves.StopWaiting():
                yield from self._stop_approvals(ANOTHER_FAILED)
                yield stop_tasks(self._known.key, ANOTHER_FAILED, self._selections, None)
            case moves.Stop():
                yield from self._stop_approvals(transitions.STOPPED)
                yield stop_tasks(self._known.key, transitions.STOPPED, self._selections, self._stop)
                yield self.stop_children()
            case moves.Undo(place):
                yield from self._undo(place)
            case moves.Close():
                yield self._close()
            case _:
                raise TypeError(f"{command} ends nothing")

    def hand_up(self) -> Operations:
        """Keeps what a completed execution gives the step of another that began it, if it is not too much."""
        known = self._known
        sinks = known.graph.sinks
        yield from known.load(sinks)
        result = evaluation.spliced(known.values(sinks).outputs)

        def decide(found: Found, now: int) -> Changes[None]:
            if len(result.encode()) > evaluation.MAX_INPUT_BYTES:
                return Changes(None)
            return Changes(None, [work.value(known.execution, work.RESULT, 0, result)])

        yield Operation(decide)

    def _gather(self, place: int) -> Operation[None]:
        known = self._known
        row, step = known.steps[place], known.definition(place)
        selections = self._selections
        find = selections.results_of_tasks if step.kind == "task" else selections.results_of_children
        selection = None if row.first_id is None else find(*known.key, step.id, row.first_id)

        def decide(found: Found, now: int) -> Changes[None]:
            results = dict(found.selected)
            output = ",".join(results.get(index, "null") for index in range(row.items or 0))
            return Changes(None, [work.value(known.execution, work.OUTPUT, place, f"[{output}]")])

        return Operation(decide, selection=selection)

    def _stop_approvals(self, reason: Failure) -> Operations:
        """Nobody needs to decide any more."""
        known = self._known
        if not known.execution.approvals:
            return
        places = [node.place for node in known.graph.nodes if node.step is not None and node.step.kind == "approval"]
        missing = known.missing(places)

        def decide(found: Found, now: int) -> Changes[None]:
            known.take_steps(missing, found)
            waiting = [place for place in places if known.steps[place].status == "running"]
            self._events.extend(moves.Cancelled(place, reason) for place in waiting)
            return Changes(None)

        yield Operation(decide, keys=list(map(known.step_key, missing)))

    def stop_children(self, step_id: str | None = None) -> Operation[None]:
        """Asks the executions to stop that the steps, or this one of them, have begun."""

        def decide(found: Found, now: int) -> Changes[None]:
            changes: Changes[None] = Changes(None)
            for (child,) in found.selected:
                is_meant = step_id is None or child.parent_step == step_id
                if is_meant and child.phase != "ended" and child.cancel_requested_at is None:
                    changes.rows.append(after := rows.copy_of(child))
                    after.cancel_requested_at = now
                    after.postponed = 1 if child.postponed or not self._room.take_execution() else None
            return changes

        return Operation(decide, selection=self._selections.running_children(*self._known.key))

    def _undo(self, place: int) -> Operations:
        known = self._known
        node, step = known.graph.nodes[place], known.definition(place)
        reads = {place, *(known.graph.places[each] for each in (node.undo_input.steps if node.undo_input else ()))}
        yield from known.load(reads)
        self._events.append(moves.UndoBegun(place))

        def decide(found: Found, now: int) -> Changes[None]:
            try:
                payload = evaluation.undo_payload(node, known.values(reads))
            except CannotBegin as refusal:
                self._events.append(moves.Failed(place, refusal.failure))
                return Changes(None)
            made = work.undoing(known.execution, step, payload, self._ids, now)
            return Changes(None, made.rows, made.events)

        yield Operation(decide)

    def _close(self) -> Operation[None]:
        """Finds the steps that have not begun and never will."""
        known = self._known

        def decide(found: Found, now: int) -> Changes[None]:
            for (row,) in found.selected:
                known.steps[row.place] = row
            self._events.append(moves.Closed())
            return Changes(None)

        return Operation(decide, selection=self._selections.pending_steps(*known.key))


def stop_tasks(
    key: ExecutionKey, reason: Failure, selections: WorkflowSelections, stop: Callable[[rows.Task], None] | None
) -> Operation[list[rows.Task]]:
    """Cancels the pending tasks of an execution. With `stop`, which tells their processes, asks the others to stop."""

    def decide(found: Found, now: int) -> Changes[list[rows.Task]]:
        changes: Changes[list[rows.Task]] = Changes([])
        for (task,) in found.selected:
            if task.status == "pending":
                changes.include([transitions.cancel(task, reason, now)])
            elif stop is not None and task.status == "running" and task.cancel_requested_at is None:
                changes.include([asked := transitions.request_cancel(task, now)])
                changes.answer.append(asked.answer)
        return changes

    def delivered(asked: list[rows.Task]) -> None:
        for task in asked:
            if stop is not None:
                stop(task)

    return Operation(decide, selection=selections.unfinished_tasks(*key), delivered=delivered)

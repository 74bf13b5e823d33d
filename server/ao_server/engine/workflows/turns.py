"""All that one transaction does for one execution: what has happened is folded, and what the planner asks for is done,
until nothing is left but to wait.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ao_server.engine.ids import Ids
from ao_server.engine.transitions import Failure
from ao_server.engine.workflows import evaluation, moves, planner, tidings, work
from ao_server.engine.workflows.beginning import Beginning
from ao_server.engine.workflows.ending import Ending
from ao_server.engine.workflows.graphs import Graphs
from ao_server.engine.workflows.happenings import (
    Begun,
    CancelWanted,
    ChildEnded,
    ExecutionKey,
    Happening,
    RetryWanted,
    StepDecided,
    TaskEnded,
)
from ao_server.engine.workflows.knowledge import Knowledge, Operations
from ao_server.engine.workflows.lists import Lists, StepKey
from ao_server.engine.workflows.room import Room
from ao_server.store import rows
from ao_server.store.changes import Changes, Found, Key, Operation
from ao_server.store.workflow_selections import WorkflowSelections


@dataclass(frozen=True, slots=True)
class Tools:
    """What every turn works with. `stop` tells the process of a running task to stop it, after the commit."""

    graphs: Graphs
    lists: Lists
    room: Room
    selections: WorkflowSelections
    ids: Ids
    stop: Callable[[rows.Task], None]


class Turn:
    """One execution's part of a transaction. Its operations are run one after the other; each is decided once."""

    def __init__(self, key: ExecutionKey, happenings: Sequence[Happening], tools: Tools) -> None:
        self._happenings = happenings
        self._lists = tools.lists
        self._known = Knowledge(key, tools.graphs)
        self._events: list[moves.Event] = []
        self._commands: deque[moves.Command] = deque()
        is_first = any(isinstance(each, Begun) for each in happenings)
        self._beginning = Beginning(
            self._known, tools.lists, tools.room, tools.selections, tools.ids, self._events, is_first=is_first
        )
        self._ending = Ending(self._known, tools.room, tools.selections, tools.ids, tools.stop, self._events)

    def operations(self) -> Operations:
        """What is to be run."""
        known = self._known
        yield from known.open()
        if known.execution.phase == "ended" and not any(isinstance(each, RetryWanted) for each in self._happenings):
            return
        yield self._fold(self._happenings)
        for each in self._happenings:
            if isinstance(each, StepDecided) and known.definition(each.step.place).kind == "workflow":
                yield self._ending.stop_children(known.definition(each.step.place).id)
        while self._events or self._commands:
            if self._events:
                events = list(self._events)
                self._events.clear()
                yield self._fold(events)
            else:
                yield from self._do(self._commands.popleft())
        if known.execution.parent_id is not None and known.execution.status == "completed":
            yield from self._ending.hand_up()

    def _fold(self, happened: Sequence[Happening | moves.Event]) -> Operation[None]:
        known = self._known
        missing = known.missing(place for each in happened for place in self._concerned(each))
        is_new = any(isinstance(each, Begun) for each in happened)
        keys = [] if is_new else list(map(known.step_key, missing))

        def decide(found: Found, now: int) -> Changes[None]:
            if is_new:
                known.begin()
            else:
                known.take_steps(missing, found)
            first, before = known.execution, dict[int, rows.ExecutionStep]()
            changes: Changes[None] = Changes(None)
            events = deque(event for each in happened if (event := self._event(each, found)) is not None)
            has_begun = any(isinstance(event, moves.Started | moves.Retried) for event in events)
            runs: dict[int, moves.Run] = {}
            while events:
                event = events.popleft()
                if self._is_late(event):
                    continue
                following = planner.step(known.graph, moves.State(known.execution, known.steps), event, now)
                for place, row in following.steps.items():
                    # What changed last is told last: steps begin after those they wait for.
                    before[place] = before.pop(place, known.steps[place])
                    known.steps[place] = row
                known.execution = following.execution
                for command in following.commands:
                    self._begin(command, events, runs)
            for run in runs.values():
                changes.include([self._beginning.run_known_items(run, now)])
            steps = [(row, known.steps[place]) for place, row in before.items()]
            told = tidings.of_execution(first, known.execution, now, has_begun=has_begun)
            told[int(has_begun) : int(has_begun)] = tidings.of_steps(known.graph, known.execution, steps, now)
            changes.events[0:0] = told
            changes.rows += [known.execution, *(after for _, after in steps)]
            self._forget_lists(steps)
            return changes

        return Operation(decide, keys=[*keys, *(key for each in happened for key in self._result_keys(each))])

    def _forget_lists(self, steps: Sequence[tuple[rows.ExecutionStep, rows.ExecutionStep]]) -> None:
        for before, after in steps:
            if before.status == "running" and after.status != "running":
                self._lists.forget(StepKey(*self._known.key, after.place))

    def _begin(self, command: moves.Command, events: deque[moves.Event], runs: dict[int, moves.Run]) -> None:
        """Does at once what needs nothing from the store; the rest is done in its turn. `runs`: by place the items that
        are begun together, once all events are folded.
        """
        match command:
            case moves.Look(place) if self._looks_at_nothing(place):
                events.append(moves.Looked(place))
            case moves.Run(place, _, count) if place in runs:
                runs[place] = moves.Run(place, runs[place].start, runs[place].count + count)
            case moves.Run(place) if self._beginning.knows_items(place):
                runs[place] = command
            case _:
                self._commands.append(command)

    def _looks_at_nothing(self, place: int) -> bool:
        node = self._known.graph.nodes[place]
        return node.condition is None and node.for_each is None

    def _do(self, command: moves.Command) -> Operations:
        match command:
            case moves.Look(place):
                yield from self._beginning.look(place)
            case moves.Run():
                yield from self._beginning.run(command)
            case _:
                yield from self._ending.do(command)

    def _concerned(self, happened: Happening | moves.Event) -> Sequence[int]:
        """The places of the steps that an event may change."""
        graph = self._known.graph
        match happened:
            case Begun() | RetryWanted() | moves.Started() | moves.Retried():
                return range(len(graph.nodes))
            case TaskEnded(task):
                return graph.touched(graph.places[task.step_id or ""])
            case ChildEnded(child):
                return graph.touched(graph.places[child.parent_step or ""])
            case StepDecided(step):
                return graph.touched(step.place)
            case CancelWanted() | moves.CancelRequested() | moves.Closed():
                return ()
            case _:
                return graph.touched(happened.place)

    def _result_keys(self, happened: Happening | moves.Event) -> list[Key]:
        """The results whose sizes are counted."""
        match happened:
            case TaskEnded(task) if task.status == "completed":
                return [Key(rows.Result, (task.project_id, task.id))]
            case ChildEnded(child) if child.status == "completed":
                return [Key(rows.ExecutionValue, (child.project_id, child.id, work.RESULT, 0))]
            case _:
                return []

    def _event(self, happened: Happening | moves.Event, found: Found) -> moves.Event | None:
        """What has happened, in the planner's words; None when nothing follows from it yet."""
        places = self._known.graph.places
        match happened:
            case Begun():
                return moves.Started()
            case RetryWanted():
                return moves.Retried()
            case CancelWanted():
                return moves.CancelRequested()
            case TaskEnded(task):
                step = self._known.steps[places[task.step_id or ""]]
                return _end_of_task(task, step.place, found) if _is_of_this_round(task.id, step) else None
            case ChildEnded(child):
                step = self._known.steps[places[child.parent_step or ""]]
                return _end_of_child(child, step, found) if _is_of_this_round(child.id, step) else None
            case StepDecided(step):
                return _decision(step, is_approval=self._known.definition(step.place).kind == "approval")
            case _:
                return happened

    def _is_late(self, event: moves.Event) -> bool:
        """Whether what it is about has ended already."""
        if self._known.execution.phase == "ended":
            return not isinstance(event, moves.Retried)
        if isinstance(event, moves.Completed | moves.Failed | moves.Cancelled):
            row = self._known.steps[event.place]
            return not row.running and row.compensation != "running"
        return isinstance(event, moves.CancelRequested) and self._known.execution.phase == "cancelling"


def _is_of_this_round(identifier: str, step: rows.ExecutionStep) -> bool:
    """Whether it was made since the execution was last begun: ids are in the order of their making."""
    return step.round_from is None or identifier >= step.round_from


def _end_of_task(task: rows.Task, place: int, found: Found) -> moves.Event:
    if task.status == "completed":
        result = found.get(rows.Result, task.project_id, task.id)
        return moves.Completed(place, 0 if result is None else result.bytes)
    failure = Failure(task.error_code or "", task.error_message or "")
    return moves.Failed(place, failure) if task.status == "failed" else moves.Cancelled(place, failure)


def _end_of_child(child: rows.Execution, step: rows.ExecutionStep, found: Found) -> moves.Event:
    if child.status == "completed":
        result = found.get(rows.ExecutionValue, child.project_id, child.id, work.RESULT, 0)
        if result is None:
            problem = f"the outputs of {child.id} are more than {evaluation.MAX_INPUT_BYTES} bytes together"
            return moves.Failed(step.place, Failure("output_too_large", problem))
        return moves.Completed(step.place, len(result.value.encode()))
    if step.decision is not None:
        return moves.Failed(step.place, Failure("timeout", f"{child.id} was not completed in time"))
    failure = Failure(child.error_code or "cancelled", f"{child.id}: {child.error_message or 'cancelled'}")
    return moves.Failed(step.place, failure) if child.status == "failed" else moves.Cancelled(step.place, failure)


def _decision(step: rows.ExecutionStep, *, is_approval: bool) -> moves.Event | None:
    if not is_approval:
        # Its executions have been asked to stop.
        return None
    match step.decision:
        case "approved":
            return moves.Completed(step.place)
        case "rejected":
            return moves.Failed(step.place, Failure("rejected", step.error_message or "rejected"))
        case _:
            return moves.Failed(step.place, Failure("timeout", "not approved in time"))

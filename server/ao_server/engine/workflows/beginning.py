"""Begins what the planner wants to run: tasks, executions, questions for approval."""

from collections.abc import Generator, Sequence
from typing import Any, Final

from ao_server.engine.workflows import evaluation, moves, work
from ao_server.engine.workflows.definition import Node
from ao_server.engine.workflows.evaluation import Batch, CannotBegin
from ao_server.engine.workflows.interpreter import Budget
from ao_server.engine.workflows.knowledge import Knowledge, Operations
from ao_server.engine.workflows.lists import Listed, StepKey
from ao_server.engine.workflows.tools import Tools
from ao_server.store import rows
from ao_server.store.changes import Changes, Found, Key, Operation

# Executions within executions.
MAX_DEPTH: Final = 10


class Beginning:
    """Of one execution, in one transaction. `events` takes what follows at once."""

    def __init__(self, known: Knowledge, tools: Tools, events: list[moves.Event], *, is_first: bool) -> None:
        """`is_first`: the execution itself begins."""
        self._known = known
        self._lists = tools.lists
        self._room = tools.room
        self._budgets = tools.budgets
        self._selections = tools.selections
        self._ids = tools.ids
        self._events = events
        self._is_first = is_first

    @property
    def _whole(self) -> Budget:
        """Of all that is computed in the transaction."""
        return self._budgets.of(self._known.execution)

    def look(self, place: int) -> Operations:
        """Evaluates the condition and the list of a step."""
        known = self._known
        reads = known.graph.reads(place)
        yield from known.load(reads)
        looked, items = evaluation.look(known.graph.nodes[place], values := known.values(reads), self._whole)
        if items and not known.steps[place].kept:
            self._lists.put(self._key(place), Listed(values, items, None))
        self._events.append(looked)

    def run(self, command: moves.Run) -> Operations:
        """Begins a step, or some of its items."""
        known = self._known
        node = known.graph.nodes[command.place]
        yield from known.load(known.graph.reads(command.place))
        match known.definition(command.place).kind:
            case "approval":
                yield self._ask(node)
            case "task" if node.for_each is None:
                yield self._run_task(node)
            case "task":
                listed = yield from self._listed(node)
                yield Operation(lambda found, now: self._changes(command, listed, now))
            case _:
                listed = None if node.for_each is None else (yield from self._listed(node))
                yield self._run_children(command, listed)

    def knows_items(self, place: int) -> bool:
        """Whether the step runs tasks for items that are in memory."""
        return self._known.definition(place).kind == "task" and self._lists.get(self._key(place)) is not None

    def run_known_items(self, command: moves.Run, now: int) -> Changes[None]:
        """Begins tasks for items that are in memory."""
        listed = self._lists.get(self._key(command.place))
        assert listed is not None
        return self._changes(command, listed, now)

    def _changes(self, command: moves.Run, listed: Listed, now: int) -> Changes[None]:
        known = self._known
        node, step = known.graph.nodes[command.place], known.definition(command.place)
        changes: Changes[None] = Changes(None)
        made: list[str] = []
        batch = Batch(self._whole)
        self._follow(command.place)
        for index in self._indices(command, listed):
            try:
                payload = evaluation.item_payload(node, listed.values, listed.items[index], index, batch)
            except CannotBegin as refusal:
                self._events.append(moves.Failed(command.place, refusal.failure))
                continue
            task = work.task(known.execution, step, payload, self._ids, now, item=index, is_first=self._is_first)
            changes.rows += task.rows
            changes.events += task.events
            made.append(task.answer.id)
        self._room.take_tasks(len(made))
        changes.rows += self._made(command.place, made)
        return changes

    def _run_task(self, node: Node) -> Operation[None]:
        known = self._known

        def decide(found: Found, now: int) -> Changes[None]:
            try:
                payload = evaluation.payload(
                    known.graph, node, known.values(known.graph.reads(node.place)), self._whole
                )
            except CannotBegin as refusal:
                self._events.append(moves.Failed(node.place, refusal.failure))
                return Changes(None)
            step = known.definition(node.place)
            self._follow(node.place)
            task = work.task(known.execution, step, payload, self._ids, now, is_first=self._is_first)
            self._room.take_tasks(1)
            return Changes(None, [*task.rows, *self._made(node.place, [task.answer.id])], task.events)

        return Operation(decide)

    def _ask(self, node: Node) -> Operation[None]:
        known = self._known
        kept = Key(rows.ExecutionValue, (*known.key, work.INPUT, node.place))

        def decide(found: Found, now: int) -> Changes[None]:
            try:
                shown = evaluation.approval_input(node, known.values(known.graph.reads(node.place)), self._whole)
            except CannotBegin as refusal:
                self._events.append(moves.Failed(node.place, refusal.failure))
                return Changes(None)
            changes: Changes[None] = Changes(None, self._made(node.place, [], now))
            # It is asked again where the execution was retried.
            if shown is not None and found.get(kept.row, *kept.values) is None:
                changes.rows.append(work.value(known.execution, work.INPUT, node.place, shown))
            return changes

        return Operation(decide, keys=[kept])

    def _run_children(self, command: moves.Run, listed: Listed | None) -> Operation[None]:
        known = self._known
        node, step = known.graph.nodes[command.place], known.definition(command.place)
        values = known.values(known.graph.reads(command.place)) if listed is None else listed.values

        def decide(found: Found, now: int) -> Changes[None]:
            indices: Sequence[int | None] = [None] if listed is None else self._indices(command, listed)
            changes: Changes[None] = Changes(None)
            made: list[str] = []
            batch = Batch(self._whole)
            workflow = found.get(rows.Workflow, known.key.project_id, step.workflow_id or "")
            self._follow(command.place)
            for index in indices:
                item = None if index is None or listed is None else listed.items[index]
                try:
                    if known.steps[command.place].decision is not None:
                        raise CannotBegin("timeout", "the step was not completed in time")
                    version = _executable(workflow, known.execution)
                    parameters = evaluation.child_parameters(node, values, batch, item, index)
                except CannotBegin as refusal:
                    self._events.append(moves.Failed(command.place, refusal.failure))
                    continue
                new = work.NewExecution(
                    known.key.project_id,
                    step.workflow_id or "",
                    version,
                    known.execution.priority,
                    parameters,
                    known.execution,
                    step.id,
                    index,
                )
                child = work.execution(new, self._ids, now, is_postponed=not self._room.take_execution())
                changes.include([child])
                made.append(child.answer.id)
            changes.rows += self._made(command.place, made, now)
            return changes

        return Operation(decide, keys=[Key(rows.Workflow, (known.key.project_id, step.workflow_id or ""))])

    def _listed(self, node: Node) -> Generator[Operation[Any], None, Listed]:
        """The items of a step as they were when it began, and which of them are left to do."""
        known = self._known
        listed = self._lists.get(self._key(node.place))
        if listed is not None:
            return listed
        assert node.for_each is not None
        values = known.values(known.graph.reads(node.place))
        items = evaluation.items_of(node.for_each, values, self._whole)
        left: list[int] | None = None
        row, step = known.steps[node.place], known.definition(node.place)
        if row.kept and row.first_id is not None:
            done: set[int] = set()

            def decide(found: Found, now: int) -> Changes[None]:
                done.update(item for (item,) in found.selected)
                return Changes(None)

            find = self._selections.completed_tasks if step.kind == "task" else self._selections.completed_children
            yield Operation(decide, selection=find(*known.key, step.id, row.first_id, row.round_from))
            left = [index for index in range(len(items)) if index not in done]
        listed = Listed(values, items, left)
        self._lists.put(self._key(node.place), listed)
        return listed

    def _indices(self, command: moves.Run, listed: Listed) -> Sequence[int]:
        """The items to begin. Where some were completed and the planner did not hear of it, as a fault of ours kept it
        from that, it hears of them now.
        """
        indices = listed.indices(command.start, command.count)
        self._events += [moves.Completed(command.place)] * (command.count - len(indices))
        return indices

    def _follow(self, place: int) -> None:
        """What runs for a step is told apart by its ids: each is greater than those before."""
        self._ids.follow(self._known.steps[place].last_id)

    def _made(self, place: int, ids: Sequence[str], due_from: int | None = None) -> list[rows.ExecutionStep]:
        """The step after these were made for it. `due_from`: its time-out counts from then on."""
        row = rows.copy_of(self._known.steps[place])
        if ids:
            row.first_id = row.first_id or ids[0]
            row.round_from = row.round_from or ids[0]
            row.last_id = ids[-1]
        timeout = self._known.definition(place).timeout
        if due_from is not None and timeout is not None and row.due_at is None:
            row.due_at = due_from + timeout
        self._known.steps[place] = row
        return [row]

    def _key(self, place: int) -> StepKey:
        return StepKey(*self._known.key, place)


def _executable(workflow: rows.Workflow | None, parent: rows.Execution) -> int:
    """The version of a workflow that a step begins. CannotBegin when there is none."""
    if workflow is None:
        raise CannotBegin("workflow_not_found", "there is no such workflow")
    if workflow.status == "archived":
        raise CannotBegin("workflow_archived", f"the workflow {workflow.id} is archived")
    if parent.depth + 1 >= MAX_DEPTH:
        raise CannotBegin("too_deep", f"executions stand at most {MAX_DEPTH} deep in each other")
    return workflow.version

"""Executions of random workflows with random ends of all that runs, over rows in memory: what the planner did."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

import msgspec

from ao_server.engine.transitions import Failure
from ao_server.engine.workflows import moves, planner
from ao_server.engine.workflows.definition import Compensation, Graph, Step, compiled
from ao_server.store import rows

MOST_FOLDS: Final = 20_000
CANCELLED: Final = Failure("cancelled", "somebody did not want it")
FAILED: Final = Failure("failed", "it did not work")


def random_steps(size: int, random: Random, policies: Sequence[str] = ("fail", "continue", "compensate")) -> list[Step]:
    """Steps by order or by dependencies, of every kind."""
    by_order = random.random() < 0.4
    ids = [f"s{place}" for place in range(size)]
    rank = random.sample(range(size), size)
    steps: list[Step] = []
    for place, id in enumerate(ids):
        fields: dict[str, Any] = {"order": random.randint(1, 1 + size // 3)}
        if not by_order:
            before = [each for each in range(size) if rank[each] < rank[place]]
            fields = {
                "depends_on": [ids[each] for each in random.sample(before, min(len(before), random.randint(0, 3)))]
            }
        kind = random.choice(("task", "task", "task", "approval", "workflow"))
        if kind == "task":
            fields["agent_type"] = "worker"
            fields["compensate"] = Compensation(type="undo") if random.random() < 0.5 else None
        if kind == "workflow":
            fields["workflow_id"] = "other"
        if kind != "approval" and random.random() < 0.4:
            fields["for_each"] = "parameters.items"
            fields["max_parallel"] = random.choice((None, 1, 2, 3))
        if random.random() < 0.3:
            fields["condition"] = "parameters.go"
        steps.append(Step(id, id, kind, on_failure=random.choice(policies), **fields))
    return steps


@dataclass(frozen=True, slots=True)
class Fold:
    """One call of the planner, and how all steps stood before it."""

    round: int
    event: moves.Event
    state: moves.State
    state_text: bytes
    next: moves.Next
    statuses: dict[int, str]


@dataclass(slots=True)
class Work:
    """A task, a question for approval, an execution, or the task that undoes a step."""

    place: int
    kind: str
    item: int | None = None
    runs: bool = True
    is_stopped: bool = False


@dataclass(slots=True)
class Odds:
    """How often things go wrong, from 0 to 1."""

    fails: float = 0.1
    cancels: float = 0.02
    is_large: float = 0.1


@dataclass(slots=True)
class History:
    """An execution from its begin to its last end; it is retried now and then. The planner is driven as `turns` does,
    but is shown no step that an event does not concern. `begun`: round, place and item, in order.
    """

    graph: Graph
    random: Random
    odds: Odds
    folds: list[Fold] = field(default_factory=list[Fold])
    begun: list[tuple[int, int, int | None]] = field(default_factory=list[tuple[int, int, int | None]])
    execution: rows.Execution = field(init=False)
    steps: dict[int, rows.ExecutionStep] = field(init=False)
    work: list[Work] = field(default_factory=list[Work])
    round: int = 0
    _looked: dict[int, moves.Looked] = field(default_factory=dict[int, moves.Looked])
    _done: dict[int, set[int | None]] = field(default_factory=dict[int, set[int | None]])
    _left: dict[int, list[int]] = field(default_factory=dict[int, list[int]])
    _stopped: list[moves.Event] = field(default_factory=list[moves.Event])

    def __post_init__(self) -> None:
        key: Any = {"project_id": "p", "id": "e", "workflow_id": "w", "version": 1, "priority": 1, "created_at": 0}
        self.execution = rows.Execution(**key)
        places = range(len(self.graph.nodes))
        self.steps = {place: rows.ExecutionStep(project_id="p", execution_id="e", place=place) for place in places}
        self._done = {place: set() for place in places}

    def play(self) -> "History":
        """Plays all of it."""
        self._turn([moves.Started()])
        while True:
            while self.execution.phase != "ended":
                self._turn(self._happenings())
            assert not self.work, "an ended execution has left something to run"
            it = self.execution
            if it.status == "completed" or it.compensates or self.round == 3 or self.random.random() < 0.3:
                return self
            self.round += 1
            self._left.clear()
            self._turn([moves.Retried()])

    def definition(self, place: int) -> Step:
        """The step in this place."""
        step = self.graph.nodes[place].step
        assert step is not None
        return step

    def count(self, place: int) -> int:
        """How often the step has to run: 1 where it has no list."""
        items = self._looked[place].items if place in self._looked else None
        return 1 if items is None else items

    def _turn(self, happenings: Sequence[moves.Event]) -> None:
        events, commands = deque(happenings), deque[moves.Command]()
        while events or commands:
            if not events:
                self._do(commands.popleft(), events)
                continue
            event = events.popleft()
            if self._is_late(event):
                continue
            for command in self._fold(event):
                if isinstance(command, moves.Look) and not self._must_look(command.place):
                    events.append(moves.Looked(command.place))
                else:
                    commands.append(command)

    def _fold(self, event: moves.Event) -> Sequence[moves.Command]:
        assert len(self.folds) < MOST_FOLDS, "it does not end"
        match event:
            case moves.Started() | moves.Retried():
                seen = self.steps
            case moves.CancelRequested():
                seen = {}
            case moves.Closed():
                seen = {place: row for place, row in self.steps.items() if row.status == "pending"}
            case _:
                seen = {place: self.steps[place] for place in self.graph.touched(event.place)}
        state = moves.State(self.execution, dict(seen))
        text = text_of(state)
        following = planner.step(self.graph, state, event, now=len(self.folds))
        statuses = {place: row.status for place, row in self.steps.items()}
        self.folds.append(Fold(self.round, event, state, text, following, statuses))
        self.execution = following.execution
        self.steps.update(following.steps)
        return following.commands

    def _is_late(self, event: moves.Event) -> bool:
        if self.execution.phase == "ended":
            return not isinstance(event, moves.Retried)
        if isinstance(event, moves.Completed | moves.Failed | moves.Cancelled):
            row = self.steps[event.place]
            return not row.running and row.compensation != "running"
        return isinstance(event, moves.CancelRequested) and self.execution.phase == "cancelling"

    def _must_look(self, place: int) -> bool:
        node = self.graph.nodes[place]
        return node.condition is not None or node.for_each is not None

    def _do(self, command: moves.Command, events: deque[moves.Event]) -> None:
        match command:
            case moves.Look(place):
                events.append(self._look(place))
            case moves.Run(place, start, count):
                kind = self.definition(place).kind
                items = self._items(place)[start : start + count]
                assert len(items) == count, "it begins more than there is"
                for item in items:
                    self.begun.append((self.round, place, item))
                    self._begin(Work(place, kind, item, runs=kind != "task"), events)
            case moves.Gather():
                pass
            case moves.StopWaiting():
                self._stop(events, running=False)
            case moves.Stop():
                self._stop(events, running=True)
            case moves.Undo(place):
                events.append(moves.UndoBegun(place))
                self._begin(Work(place, "undo", runs=False), events)
            case moves.Close():
                events.append(moves.Closed())

    def _look(self, place: int) -> moves.Looked:
        if place not in self._looked:
            if self.random.random() < self.odds.fails / 2:
                return moves.Looked(place, failure=FAILED)
            is_list = self.graph.nodes[place].for_each is not None
            is_skipped = self.graph.nodes[place].condition is not None and self.random.random() < 0.4
            items = self.random.choice((0, 1, 2, 3, 7)) if is_list and not is_skipped else None
            self._looked[place] = moves.Looked(place, items, is_skipped)
        return self._looked[place]

    def _items(self, place: int) -> Sequence[int | None]:
        """Those that are left to do in this round."""
        if self.graph.nodes[place].for_each is None:
            return [None]
        if place not in self._left:
            self._left[place] = [index for index in range(self.count(place)) if index not in self._done[place]]
        return self._left[place]

    def _begin(self, work: Work, events: deque[moves.Event]) -> None:
        if self.random.random() < self.odds.fails / 5:
            events.append(moves.Failed(work.place, FAILED))
        else:
            self.work.append(work)

    def _stop(self, events: deque[moves.Event], *, running: bool) -> None:
        """Questions are taken back at once. Tasks that nobody has begun end with the next turn, others as they like."""
        for work in list(self.work):
            if work.kind == "approval" or not work.runs:
                self.work.remove(work)
                (events if work.kind == "approval" else self._stopped).append(moves.Cancelled(work.place, CANCELLED))
            elif running:
                work.is_stopped = True

    def _happenings(self) -> list[moves.Event]:
        happened, self._stopped = self._stopped, []
        while not happened:
            if self.random.random() < self.odds.cancels:
                happened.append(moves.CancelRequested())
            assert self.work, "nothing runs any more, and it has not ended"
            for work in self.random.sample(self.work, min(len(self.work), self.random.randint(1, 3))):
                if not work.runs and self.random.random() < 0.9:
                    work.runs = True
                else:
                    self.work.remove(work)
                    happened.append(self._end(work))
        return happened

    def _end(self, work: Work) -> moves.Event:
        if not work.runs or (work.is_stopped and self.random.random() < 0.7):
            return moves.Cancelled(work.place, CANCELLED)
        if self.random.random() < self.odds.fails:
            return self.random.choice((moves.Failed, moves.Cancelled))(work.place, FAILED)
        if work.kind != "undo":
            self._done[work.place].add(work.item)
        return moves.Completed(work.place, 400_000 if self.random.random() < self.odds.is_large else 10)


def text_of(value: moves.State | moves.Next) -> bytes:
    """To compare rows by what they hold."""
    commands = [(type(each).__name__, each) for each in value.commands] if isinstance(value, moves.Next) else []
    return msgspec.json.encode((value.execution, sorted(value.steps.items()), commands))


def random_history(size: int, seed: int, odds: Odds | None = None, policies: Sequence[str] | None = None) -> History:
    """The history of this seed: of a workflow of so many steps."""
    random = Random(seed)
    steps = random_steps(size, random, *([] if policies is None else [policies]))
    chosen = odds or Odds(random.choice((0.0, 0.1, 0.3)), random.choice((0.0, 0.02, 0.1)), random.choice((0.0, 0.3)))
    return History(compiled(steps), random, chosen).play()

"""Promise 2, by property: whatever is reported in whichever order, each task gets exactly one counted outcome."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ao_server.engine import bodies, cancellation, counters, logs, reports, timeouts, transitions
from ao_server.engine.sessions import Attempt, InstanceKey
from ao_server.engine.states import FINAL
from ao_server.engine.transitions import MAX_DELIVERIES, Failure
from ao_server.errors import Conflict
from ao_server.store import rows
from ao_server.store.changes import Change, Changes, Operation

PROJECT, AGENT = "project_default", "agent_1"
INSTANCES = st.sampled_from(["one", "two"])
NUMBERS = st.integers(0, 8)
TASKS = st.sampled_from(["task_a", "task_b"])
ENDINGS = st.sampled_from(
    [
        reports.Completed('{"n":1}'),
        Failure("task_error", "boo"),
        Failure("task_error", "never again", is_final=True),
        reports.CancelledByAgent(),
        reports.HandedBack(),
    ]
)


THE_AGENT = rows.Agent(
    project_id=PROJECT,
    id=AGENT,
    name="Agent",
    type="worker",
    status="active",
    configuration='{"retry_attempts": 2}',
    created_at=0,
    updated_at=0,
)


def _nobody(settled: reports.Settlements) -> None:
    """There is no stream to tell."""


@dataclass
class Memory:
    """A store that is a dictionary."""

    tasks: dict[str, rows.Task] = field(default_factory=dict[str, rows.Task])
    counts: Counter[str] = field(default_factory=Counter[str])
    events: list[rows.Event] = field(default_factory=list[rows.Event])
    results: list[str] = field(default_factory=list[str])
    selected: tuple[Any, ...] = ()

    def get(self, row: type[Any], *key: str | int) -> Any:
        return THE_AGENT if row is rows.Agent else self.tasks.get(str(key[1]))

    def apply(self, changes: Changes[Any]) -> None:
        moved: dict[str, Change] = {}
        for row in changes.rows:
            if isinstance(row, rows.Task):
                moved[row.id] = (self.tasks.get(row.id), row)
                self.tasks[row.id] = row
            elif isinstance(row, rows.Result):
                self.results.append(row.task_id)
        for row in counters.of(moved.values()):
            if isinstance(row, rows.TaskCount):
                self.counts[row.status] += row.tasks
        self.events += changes.events


class Fence(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.memory = Memory()
        self.now = 1_000_000
        for task_id in ("task_a", "task_b"):
            task = rows.Task(
                project_id=PROJECT,
                id=task_id,
                agent_id=AGENT,
                queue=AGENT,
                type="t",
                priority=2,
                created_at=0,
                status="pending",
            )
            self.memory.apply(transitions.create(task, "{}", {}))

    def run(self, operation: Operation[Any]) -> Any:
        self.now += 1_000
        changes = operation.decide(self.memory, self.now)
        self.memory.apply(changes)
        return changes.answer

    def is_current(self, task_id: str, instance: str, number: int) -> bool:
        task = self.memory.tasks[task_id]
        return task.status == "running" and (task.instance_id, task.attempt) == (instance, number)

    @rule(task_id=TASKS, instance=INSTANCES)
    def claim(self, task_id: str, instance: str) -> None:
        task = self.memory.tasks[task_id]
        if task.status == "pending" and task.ready_at is None:
            self.memory.apply(transitions.claim(task, AGENT, instance, 1_000_000, self.now))
            assert self.memory.tasks[task_id].attempt == task.attempt + 1

    @rule(task_id=TASKS)
    def lose(self, task_id: str) -> None:
        task = self.memory.tasks[task_id]
        if task.status == "running":
            self.memory.apply(transitions.lose(task, self.now))
            expected = "failed" if task.deliveries >= MAX_DELIVERIES else "pending"
            if task.cancel_requested_at is not None:
                expected = "cancelled"
            assert self.memory.tasks[task_id].status == expected

    @rule(task_id=TASKS)
    def release(self, task_id: str) -> None:
        task = self.memory.tasks[task_id]
        if task.ready_at is not None:
            self.memory.apply(transitions.release(task))

    @rule(task_id=TASKS)
    def cancel(self, task_id: str) -> None:
        status = self.memory.tasks[task_id].status
        try:
            self.run(cancellation.cancel(PROJECT, task_id, lambda task: None))
        except Conflict:
            assert status in ("completed", "failed")
        else:
            task = self.memory.tasks[task_id]
            assert task.status == "cancelled" or (task.status == "running" and task.cancel_requested_at is not None)

    @rule(task_id=TASKS, instance=INSTANCES, number=NUMBERS)
    def give_up(self, task_id: str, instance: str, number: int) -> None:
        before = self.memory.tasks[task_id]
        self.run(timeouts.give_up(InstanceKey(PROJECT, AGENT, instance), Attempt(task_id, number), lambda: 0.5))
        if before.status != "running" or before.attempt != number:
            assert self.memory.tasks[task_id] == before

    @rule(task_id=TASKS, instance=INSTANCES, number=NUMBERS, ending=ENDINGS)
    def settle(self, task_id: str, instance: str, number: int, ending: Any) -> None:
        current = self.is_current(task_id, instance, number)
        before = (dict(self.memory.tasks), len(self.memory.events), len(self.memory.results))
        outcome = reports.Outcome(Attempt(task_id, number), ending)
        ((_, accepted),) = self.run(
            reports.settle(InstanceKey(PROJECT, AGENT, instance), [outcome], lambda: 0.5, _nobody)
        )
        if current:
            assert accepted
        else:
            assert (self.memory.tasks, len(self.memory.events), len(self.memory.results)) == before
            task = self.memory.tasks[task_id]
            if accepted:
                assert task.status in FINAL and (task.instance_id, task.attempt) == (instance, number)

    @rule(task_id=TASKS, instance=INSTANCES, number=NUMBERS, percent=st.floats(0, 100))
    def report(self, task_id: str, instance: str, number: int, percent: float) -> None:
        current = self.is_current(task_id, instance, number)
        events = len(self.memory.events)
        key, attempt = InstanceKey(PROJECT, AGENT, instance), Attempt(task_id, number)
        self.run(reports.progress(key, [reports.ProgressReport(attempt, percent, "at it")]))
        self.run(reports.log(key, [reports.LogReport(attempt, logs.Line("info", "line"))]))
        assert len(self.memory.events) == events + (2 if current else 0)

    @rule(task_id=TASKS, number=NUMBERS, ending=ENDINGS)
    def settle_from_another_agent(self, task_id: str, number: int, ending: Any) -> None:
        before = dict(self.memory.tasks)
        outcome = reports.Outcome(Attempt(task_id, number), ending)
        for key in (InstanceKey(PROJECT, "agent_2", "one"), InstanceKey(PROJECT, "agent_2", "two")):
            ((_, accepted),) = self.run(reports.settle(key, [outcome], lambda: 0.5, _nobody))
            assert not accepted
        assert self.memory.tasks == before

    @invariant()
    def counters_are_exact(self) -> None:
        actual = Counter(task.status for task in self.memory.tasks.values())
        assert +self.memory.counts == actual

    @invariant()
    def failures_and_losses_are_bounded(self) -> None:
        for task in self.memory.tasks.values():
            assert task.failures <= 3 and task.deliveries <= MAX_DELIVERIES

    @invariant()
    def one_outcome_a_task(self) -> None:
        ended = Counter(
            event.task_id
            for event in self.memory.events
            if event.type in ("task_completed", "task_failed", "task_cancelled")
        )
        final = {task.id for task in self.memory.tasks.values() if task.status in FINAL}
        assert ended == dict.fromkeys(final, 1)
        assert len(set(self.memory.results)) == len(self.memory.results)

    @invariant()
    def events_carry_the_row_after_the_change(self) -> None:
        last = {event.task_id: event for event in self.memory.events if event.type != "task_log"}
        for task_id, event in last.items():
            status = bodies.decode(event).task.status
            assert status == self.memory.tasks[str(task_id)].status


Fence.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestFence = Fence.TestCase

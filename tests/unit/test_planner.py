"""The planner over random workflows and random orders of events: what always holds."""

from collections import Counter
from collections.abc import Iterator
from itertools import groupby, pairwise
from typing import Final

from hypothesis import given, settings
from hypothesis import strategies as st

from ao_server.engine.workflows import moves, planner
from ao_server.engine.workflows.definition import Step, compiled
from ao_server.store import rows
from tests.unit.planner_histories import Fold, History, Odds, random_history, text_of

FINAL: Final = {"completed", "failed", "cancelled", "skipped"}

always = settings(max_examples=80, deadline=None)
seeds = given(st.integers(1, 14), st.integers(0, 2**48))


def rounds(history: History) -> Iterator[list[Fold]]:
    """The calls from one begin to the next."""
    for _, folds in groupby(history.folds, key=lambda fold: fold.round):
        yield list(folds)


def begins(fold: Fold) -> list[int]:
    """The places that it begins something of, or is about to."""
    return [each.place for each in fold.next.commands if isinstance(each, moves.Look | moves.Run)]


def fails_the_execution(history: History, fold: Fold) -> bool:
    """Whether it tells of something that ends all that has not begun."""
    match fold.event:
        case moves.CancelRequested():
            return True
        case moves.Looked(place) | moves.Completed(place):
            row = fold.next.steps[place]
            return row.error_code is not None and history.definition(place).on_failure != "continue"
        case moves.Failed(place) | moves.Cancelled(place):
            return history.definition(place).on_failure != "continue"
        case _:
            return False


def let_go(history: History, place: int, status: str) -> bool:
    """Whether a step that ended so lets those behind it begin."""
    node = history.graph.nodes[place]
    goes_on = node.step is not None and node.step.on_failure == "continue"
    return status in ("completed", "skipped") or (status == "failed" and goes_on)


@always
@seeds
def test_no_step_begins_before_all_that_it_depends_on_has_ended(size: int, seed: int) -> None:
    history = random_history(size, seed)
    for fold in history.folds:
        statuses = fold.statuses | {place: row.status for place, row in fold.next.steps.items()}
        for place in begins(fold):
            assert all(let_go(history, need, statuses[need]) for need in history.graph.nodes[place].needs)


@always
@seeds
def test_every_execution_ends_with_nothing_left_open(size: int, seed: int) -> None:
    history = random_history(size, seed)
    it = history.execution
    assert it.phase == "ended" and it.status in FINAL and it.completed_at is not None
    assert (it.open, it.active, it.approvals) == (0, 0, 0)
    for place, row in history.steps.items():
        assert row.status in FINAL and row.completed_at is not None and row.running == 0
        assert row.due_at is None and row.compensation != "running"
        assert it.status != "completed" or let_go(history, place, row.status)


@always
@seeds
def test_every_step_ends_in_one_final_state_once_a_round(size: int, seed: int) -> None:
    history = random_history(size, seed)
    for folds in rounds(history):
        ends: Counter[int] = Counter()
        for fold in folds:
            for place, row in fold.next.steps.items():
                before = "pending" if isinstance(fold.event, moves.Retried) else fold.statuses[place]
                if before in FINAL:
                    assert row.status == before
                ends[place] += row.status in FINAL and before not in FINAL
        first = folds[0]
        kept = {place for place, status in first.statuses.items() if let_go(history, place, status)}
        assert {place for place, count in ends.items() if count} | kept == set(history.steps)
        assert set(ends.values()) <= {0, 1}


@always
@seeds
def test_no_more_items_run_than_may_and_each_begins_once_a_round(size: int, seed: int) -> None:
    history = random_history(size, seed)
    assert max(Counter(history.begun).values(), default=1) == 1
    for fold in history.folds:
        for place in begins(fold):
            row = fold.next.steps[place]
            most = 1 if row.items is None else history.definition(place).max_parallel or planner.MAX_PARALLEL
            assert row.running <= most
    for place, row in history.steps.items():
        if row.items is None or row.bytes > planner.MAX_OUTPUT_BYTES:
            assert row.items is None or row.status != "completed"
        elif let_go(history, place, row.status):
            assert {item for _, at, item in history.begun if at == place} == set(range(row.items))


@always
@seeds
def test_a_retry_runs_no_completed_step_and_no_completed_item_again(size: int, seed: int) -> None:
    history = random_history(size, seed)
    kept: set[int] = set()
    for folds in rounds(history):
        kept |= {place for place, status in folds[0].statuses.items() if let_go(history, place, status)}
        assert kept.isdisjoint(place for fold in folds for place in begins(fold))
    completed = Counter(place for fold in history.folds for place in items_completed_by(fold))
    for place, count in completed.items():
        assert count <= history.count(place)
    for place, row in history.steps.items():
        if row.items is not None and row.status == "completed":
            assert completed[place] == row.kept + row.completed == row.items


def items_completed_by(fold: Fold) -> list[int]:
    match fold.event:
        case moves.Completed(place) if fold.state.steps[place].compensation != "running":
            return [place]
        case _:
            return []


@always
@seeds
def test_a_retry_runs_all_that_was_cut_short(size: int, seed: int) -> None:
    history = random_history(size, seed)
    for before, folds in pairwise(rounds(history)):
        for fold in before:
            if isinstance(fold.event, moves.Cancelled) and fold.state.execution.phase in ("failing", "cancelling"):
                row = fold.next.steps[fold.event.place]
                failed_itself = row.bytes > planner.MAX_OUTPUT_BYTES
                status = folds[0].statuses[row.place]
                assert row.compensation is not None or failed_itself or not let_go(history, row.place, status)
        left = {place for place, status in folds[0].statuses.items() if not let_go(history, place, status)}
        assert left == {place for place, row in folds[0].next.steps.items() if row.status not in FINAL} | {
            place for place in left if history.graph.nodes[place].step is None
        }


@always
@seeds
def test_completed_steps_are_undone_last_first_one_at_a_time(size: int, seed: int) -> None:
    history = random_history(size, seed)
    *before, last = rounds(history)
    assert not any(isinstance(fold.event, moves.UndoBegun) for folds in before for fold in folds)
    ended = [place for fold in history.folds for place in completed_by(fold)]
    undoable = [
        place
        for place in ended
        if (step := history.graph.nodes[place].step) is not None and step.compensate is not None
    ]
    undone: list[int] = []
    for fold in last:
        if isinstance(fold.event, moves.UndoBegun):
            assert fold.state.execution.active == 1, "something else runs"
            undone.append(fold.event.place)
    must = any(
        history.steps[place].status == "failed" and history.definition(place).on_failure == "compensate"
        for place in history.graph.places.values()
    )
    wanted = undoable[::-1] if must else []
    if history.execution.status == "cancelled":
        # It was stopped on the way.
        wanted = wanted[: len(undone)]
    assert undone == wanted
    assert bool(history.execution.compensates) == bool(undone)
    assert {place for place, row in history.steps.items() if row.compensation is not None} == set(undone)


def completed_by(fold: Fold) -> list[int]:
    return [
        place
        for place, row in fold.next.steps.items()
        if row.status == "completed" and fold.statuses[place] != "completed"
    ]


@always
@seeds
def test_nothing_begins_after_a_failure_or_a_cancel(size: int, seed: int) -> None:
    history = random_history(size, seed)
    for folds in rounds(history):
        is_over = False
        for fold in folds:
            is_over = is_over or fails_the_execution(history, fold)
            if is_over:
                assert begins(fold) == []
                assert fold.next.execution.phase != "forward"
        stops = [each for fold in folds for each in fold.next.commands if isinstance(each, moves.StopWaiting)]
        cancels = [fold for fold in folds if isinstance(fold.event, moves.CancelRequested)]
        assert len(stops) == is_over or cancels


@always
@seeds
def test_where_failures_do_not_matter_everything_else_still_runs(size: int, seed: int) -> None:
    history = random_history(size, seed, Odds(fails=0.4, cancels=0), ("continue",))
    assert history.execution.status == "completed" and history.execution.error_code is None
    assert "cancelled" not in {row.status for row in history.steps.values()}


@always
@seeds
def test_the_same_events_give_the_same_commands_and_rows_given_are_not_changed(size: int, seed: int) -> None:
    history = random_history(size, seed)
    for now, fold in enumerate(history.folds):
        again = planner.step(history.graph, fold.state, fold.event, now)
        assert text_of(again) == text_of(fold.next)
        assert text_of(fold.state) == fold.state_text


def test_an_execution_that_a_fault_has_broken_off_is_not_completed_by_a_retry() -> None:
    history = random_history(6, 0, Odds(fails=0, cancels=0))
    begun = next(fold for fold in history.folds if isinstance(fold.event, moves.Looked))
    execution, steps = rows.copy_of(begun.next.execution), {**history.folds[0].next.steps, **begun.next.steps}
    execution.status, execution.phase, execution.completed_at = "failed", "ended", 1
    retried = planner.step(history.graph, moves.State(execution, steps), moves.Retried(), 2)
    assert retried.execution.status == "running" and retried.execution.open == len(steps)
    assert retried.commands == history.folds[0].next.commands


def test_results_of_many_items_are_counted_up_to_what_is_too_much() -> None:
    graph = compiled([Step(id="a", name="a", agent_type="t", for_each="parameters.l", max_parallel=10_000)])
    execution = rows.Execution(project_id="p", id="e", workflow_id="w", version=1, priority=2, created_at=1)
    state = moves.State(execution, {0: rows.ExecutionStep(project_id="p", execution_id="e", place=0)})
    for event in (moves.Started(), moves.Looked(0, 5_000), *[moves.Completed(0, planner.MAX_OUTPUT_BYTES)] * 3_000):
        following = planner.step(graph, state, event, 1)
        state = moves.State(following.execution, {**state.steps, **following.steps})
    step = state.steps[0]
    assert (step.completed, step.running, step.error_code) == (3_000, 2_000, "output_too_large")
    assert step.bytes == planner.MAX_OUTPUT_BYTES + 1

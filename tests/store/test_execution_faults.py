"""Executions that a fault of ours, or what is too large, has failed: what is left of them, and that they can go on."""

from typing import Any

import pytest

from ao_server.engine.workflows import executions, moves, planner, work
from ao_server.engine.workflows.definition import Graph
from ao_server.store import rows
from tests.store.fleet_world import PROJECT
from tests.store.workflow_world import Flows, step


@pytest.fixture
def break_planner(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Breaks the planner for an execution."""
    fold = planner.step

    def break_it(execution: str) -> None:
        def broken(graph: Graph, state: moves.State, event: moves.Event, now: int) -> moves.Next:
            if state.execution.id == execution:
                raise RuntimeError("a fault")
            return fold(graph, state, event, now)

        monkeypatch.setattr(planner, "step", broken)

    return break_it


@pytest.mark.parametrize("others", [0, 3])
async def test_what_the_store_does_not_take_of_an_execution_fails_that_alone_and_the_outcome_of_its_task_counts(
    flows: Flows, monkeypatch: pytest.MonkeyPatch, others: int
) -> None:
    workflow = await flows.keep([step("a"), step("b", order=2)])
    bad, *good = [await flows.execute(workflow) for _ in range(1 + others)]
    made = work.task

    def task(owner: rows.Execution, *rest: Any, **more: Any) -> Any:
        changes = made(owner, *rest, **more)
        if owner.id == bad:
            vars(changes.answer)["type"] = None
        return changes

    monkeypatch.setattr(work, "task", task)
    await flows.work(lambda task, payload: {})
    ended = await flows.execution(bad)
    assert (ended.status, ended.error_code) == ("failed", "internal_error")
    assert [each.status for each in flows.ran] == ["running"] * (1 + 2 * others)
    assert not flows.process.ended, "an outcome was not settled"
    for each in good:
        assert (await flows.execution(each)).status == "completed"


async def test_an_item_whose_execution_gave_too_much_is_executed_again_by_a_retry(flows: Flows) -> None:
    inner = await flows.keep([step("x", order=1), step("y", order=1)], "inner")
    many = step("many", kind="workflow", workflow_id=inner, for_each="parameters.of", input="{size: item}")
    execution = await flows.execute(await flows.keep([many]), of=[1, 700_000])
    await flows.work(lambda task, payload: {"z": "y" * payload["parameters"]["size"]})
    failed = await flows.execution(execution)
    assert (failed.status, failed.error_code) == ("failed", "output_too_large")
    flows.ran.clear()
    await flows.submit(executions.retry(PROJECT, execution))
    await flows.work(lambda task, payload: {"z": ""})
    assert (await flows.execution(execution)).status == "completed"
    assert len(flows.ran) == 2
    assert await flows.output(execution, 0) == [{"x": {"z": "y"}, "y": {"z": "y"}}, {"x": {"z": ""}, "y": {"z": ""}}]


async def test_items_that_ended_in_a_fault_of_ours_count_when_it_is_retried(
    flows: Flows, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = [step("many", for_each="parameters.of", max_parallel=2), step("z", order=2)]
    execution = await flows.execute(await flows.keep(steps), of=[0, 1, 2, 3])
    await flows.work(lambda task, payload: {"n": 0} if task.item == 0 else None)
    monkeypatch.setattr(work, "task", None)
    await flows.work(lambda task, payload: {"n": 1} if task.item == 1 else None)
    assert (await flows.execution(execution)).error_code == "internal_error"
    monkeypatch.undo()
    await flows.submit(executions.retry(PROJECT, execution))
    await flows.work(lambda task, payload: {"n": task.item or 0})
    assert (await flows.execution(execution)).status == "completed"
    assert await flows.output(execution, 0) == [{"n": n} for n in range(4)]


async def test_a_fault_of_ours_stops_the_executions_that_its_steps_have_begun(flows: Flows, break_planner: Any) -> None:
    inner = await flows.keep([step("in")], "inner")
    steps = [step("one", kind="workflow", workflow_id=inner, order=1), step("b", order=1)]
    execution = await flows.execute(await flows.keep(steps))
    break_planner(execution)
    await flows.work(lambda task, payload: {} if task.step_id == "b" else None)
    assert (await flows.execution(execution)).error_code == "internal_error"
    assert len(flows.process.running) == 1 and flows.process.asked_to_stop == set(flows.process.running)


async def test_an_approval_that_is_asked_for_again_after_a_fault_of_ours_has_all_its_time(
    flows: Flows, break_planner: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = [step("ask", kind="approval", timeout=5_000_000, order=1), step("b", order=1)]
    execution = await flows.execute(await flows.keep(steps))
    await flows.world.pass_time(4)
    break_planner(execution)
    await flows.work(lambda task, payload: {})
    assert (await flows.execution(execution)).error_code == "internal_error"
    monkeypatch.undo()
    await flows.submit(executions.retry(PROJECT, execution))
    await flows.world.pass_time(3)
    assert await flows.statuses(execution, 1) == ["running"]
    await flows.world.pass_time(3)
    assert await flows.statuses(execution, 1) == ["failed"]


async def test_an_approval_that_ended_in_a_fault_of_ours_is_approved_again(
    flows: Flows, break_planner: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    execution = await flows.execute(await flows.keep([step("ask", kind="approval")]))
    break_planner(execution)
    await flows.submit(executions.decide(PROJECT, execution, 0, "approved", "Ada", None))
    assert (await flows.execution(execution)).error_code == "internal_error"
    monkeypatch.undo()
    await flows.submit(executions.retry(PROJECT, execution))
    await flows.submit(executions.decide(PROJECT, execution, 0, "approved", "Bob", None))
    assert (await flows.execution(execution)).status == "completed"
    assert await flows.output(execution, 0) == {"approved": True, "who": "Ada"}

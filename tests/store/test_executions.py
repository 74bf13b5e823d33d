"""Executions by the real engine: what runs when, what is given to it, and what becomes of it."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from ao_server.engine.reports import CancelledByAgent
from ao_server.engine.transitions import Failure
from ao_server.engine.workflows import evaluation, executions, room, work
from ao_server.engine.workflows.definition import Compensation, Step
from ao_server.engine.workflows.lists import StepKey
from ao_server.engine.workflows.postponed import PostponedExecutions
from ao_server.errors import Conflict
from ao_server.store import rows
from ao_server.store.changes import Change
from tests.store.fleet_world import PROJECT
from tests.store.workflow_world import Flows, step

FAILURE = Failure("task_error", "it broke", is_final=True)


async def test_steps_run_in_order_and_each_is_given_what_came_before(flows: Flows) -> None:
    workflow = await flows.keep([step("a", order=1), step("b", order=2), step("c", order=3, type="load")])
    execution = await flows.execute(workflow, source="x")
    given: list[Any] = []
    await flows.work(lambda task, payload: given.append((task.step_id, task.type, payload)) or {"of": task.step_id})
    assert given == [
        ("a", "default", {"parameters": {"source": "x"}, "previous": {}}),
        ("b", "default", {"parameters": {"source": "x"}, "previous": {"a": {"of": "a"}}}),
        ("c", "load", {"parameters": {"source": "x"}, "previous": {"b": {"of": "b"}}}),
    ]
    assert (await flows.execution(execution)).status == "completed"
    assert flows.told() == [
        "workflow_started",
        *["workflow_step_started", "workflow_step_completed"] * 3,
        "workflow_completed",
    ]


async def test_steps_of_equal_order_run_together_and_the_next_waits_for_all(flows: Flows) -> None:
    workflow = await flows.keep(
        [step("a", order=1), *(step(n, order=2) for n in "bcd"), *(step(n, order=3) for n in "ef")]
    )
    execution = await flows.execute(workflow)
    await flows.work(lambda task, payload: {} if task.step_id in ("a", "b", "c") else None)
    assert await flows.statuses(execution, 6) == ["completed"] * 3 + ["running", "pending", "pending"]
    payloads: dict[str | None, Any] = {}
    await flows.work(lambda task, payload: payloads.setdefault(task.step_id, payload) and {})
    assert sorted(payloads["e"]["previous"]) == ["b", "c", "d"]
    assert (await flows.execution(execution)).status == "completed"


async def test_a_step_is_told_to_have_begun_behind_the_ends_of_all_that_it_waited_for(flows: Flows) -> None:
    workflow = await flows.keep([step("a", order=1), step("b", order=1), step("c", order=2)])
    await flows.execute(workflow)
    # Both end in one transaction.
    await flows.work(lambda task, payload: {})
    words = [type_.removeprefix("workflow_step_") for type_ in flows.told() if "_step_" in type_]
    assert words == ["started", "started", "completed", "completed", "started", "completed"]


async def test_a_list_is_fanned_out_within_its_bound_and_gathered_in_order(flows: Flows) -> None:
    steps = [
        step("extract"),
        step("process", for_each="steps.extract.output.rows", max_parallel=3, input="{n: item.n, at: index}"),
        step("load", input="{all: steps.process.output[].n}"),
    ]
    execution = await flows.execute(await flows.keep(steps))
    most = 0
    extracted = [{"n": n} for n in range(50)]

    def answer(task: rows.Task, payload: Any) -> Any:
        nonlocal most
        most = max(most, len(flows.process.running) if task.step_id == "process" else 0)
        match task.step_id:
            case "extract":
                return {"rows": extracted}
            case "process":
                assert payload == {"n": task.item, "at": task.item}
                return {"n": payload["n"] * 2}
            case _:
                assert payload == {"all": [n * 2 for n in range(50)]}
                return {}

    await flows.work(answer)
    assert most == 3
    assert await flows.output(execution, 1) == [{"n": n * 2} for n in range(50)]
    assert (await flows.execution(execution)).status == "completed"


async def test_conditions_skip_and_an_empty_list_is_an_empty_output(flows: Flows) -> None:
    steps = [
        step("a", condition="parameters.on"),
        step("b", for_each="parameters.none", order=2),
        step("c", condition="length(steps.b.output) == `0`", order=3),
    ]
    execution = await flows.execute(await flows.keep(steps), on=False, none=[])
    await flows.work(lambda task, payload: {})
    assert [task.step_id for task in flows.ran] == ["c"]
    assert await flows.statuses(execution, 3) == ["skipped", "completed", "completed"]
    assert await flows.output(execution, 1) == []


async def test_a_failure_lets_what_runs_end_cancels_what_waits_and_begins_nothing_more(flows: Flows) -> None:
    steps = [step("a"), step("b", order=1), step("ask", kind="approval", order=1), step("c", order=2)]
    execution = await flows.execute(await flows.keep(steps))
    await flows.work(lambda task, payload: FAILURE if task.step_id == "a" else None)
    assert await flows.statuses(execution, 4) == ["failed", "running", "cancelled", "pending"]
    assert (await flows.execution(execution)).status == "running"
    await flows.work(lambda task, payload: {})
    assert await flows.statuses(execution, 4) == ["failed", "completed", "cancelled", "cancelled"]
    ended = await flows.execution(execution)
    assert (ended.status, ended.error_code, ended.error_message) == ("failed", "task_error", "step 'a': it broke")
    assert ended.open == ended.active == ended.approvals == 0


async def test_a_retry_runs_what_failed_and_keeps_what_was_completed_down_to_the_items(flows: Flows) -> None:
    steps = [step("a"), step("many", for_each="parameters.of", max_parallel=2), step("z")]
    execution = await flows.execute(await flows.keep(steps), of=[1, 2, 3, 4, 5, 6])
    await flows.work(lambda task, payload: FAILURE if task.item == 3 else {"n": task.item or 0})
    assert (await flows.execution(execution)).status == "failed"
    done = {task.item for task in flows.ran if task.step_id == "many"} - {3}
    flows.ran.clear()
    await flows.submit(executions.retry(PROJECT, execution))
    await flows.work(lambda task, payload: {"n": task.item or 0})
    again = [task.item for task in flows.ran if task.step_id == "many"]
    assert len(again) == len(set(again)) and set(again) == set(range(6)) - done
    assert [task.step_id for task in flows.ran if task.step_id != "many"] == ["z"]
    assert await flows.output(execution, 1) == [{"n": n} for n in range(6)]
    ended = await flows.execution(execution)
    assert (ended.status, ended.retries, ended.error_code) == ("completed", 1, None)
    with pytest.raises(Conflict):
        await flows.submit(executions.retry(PROJECT, execution))


async def test_completed_steps_are_undone_the_last_first_and_then_it_has_failed(flows: Flows) -> None:
    steps = [
        step("a", compensate=Compensation(type="undo-a", input="{id: steps.a.output.id}")),
        step("b", order=2),
        step("c", order=3, compensate=Compensation(agent_type="t", type="undo-c")),
        step("d", order=4, on_failure="compensate", compensate=Compensation(type="undo-d")),
    ]
    execution = await flows.execute(await flows.keep(steps), x=1)
    given: list[Any] = []
    await flows.work(
        lambda task, payload: (
            FAILURE if task.step_id == "d" else given.append((task.type, payload)) or {"id": task.step_id}
        )
    )
    assert [each for each in given if each[0].startswith("undo")] == [
        ("undo-c", {"parameters": {"x": 1}, "output": {"id": "c"}}),
        ("undo-a", {"id": "a"}),
    ]
    ended = await flows.execution(execution)
    assert (ended.status, ended.phase) == ("failed", "ended")
    assert [row.compensation for row in await flows.steps(execution)] == ["completed", None, "completed", None]


async def test_a_cancel_reaches_what_runs_and_leaves_nothing_pending(flows: Flows) -> None:
    steps = [step("a"), step("b", order=1), step("ask", kind="approval", order=1), step("c", order=2)]
    execution = await flows.execute(await flows.keep(steps))
    await flows.submit(executions.cancel(PROJECT, execution))
    assert flows.process.asked_to_stop == set(flows.process.running)
    await flows.work(lambda task, payload: CancelledByAgent())
    assert await flows.statuses(execution, 4) == ["cancelled"] * 4
    assert (await flows.execution(execution)).status == "cancelled"
    assert flows.told()[-1] == "workflow_cancelled"


async def test_an_approval_is_waited_for_and_gives_what_was_said(flows: Flows) -> None:
    steps = [step("ask", kind="approval"), step("b", input="{by: steps.ask.output.who}")]
    execution = await flows.execute(await flows.keep(steps))
    assert (await flows.execution(execution)).approvals == 1
    await flows.submit(executions.decide(PROJECT, execution, 0, "approved", "Ada", "fine"))
    given: list[Any] = []
    await flows.work(lambda task, payload: given.append(payload) or {})
    assert given == [{"by": "Ada"}]
    ended = await flows.execution(execution)
    assert (ended.status, ended.approvals) == ("completed", 0)


async def test_an_approval_runs_out_of_time_and_can_be_asked_for_again(flows: Flows) -> None:
    execution = await flows.execute(
        await flows.keep([step("ask", kind="approval", timeout=5_000_000, input="{a: `1`}")])
    )
    await flows.world.pass_time(7)
    failed = await flows.execution(execution)
    assert (failed.status, failed.error_code) == ("failed", "timeout")
    await flows.submit(executions.retry(PROJECT, execution))
    await flows.submit(executions.decide(PROJECT, execution, 0, "rejected", "Ada", None))
    assert (await flows.execution(execution)).error_message == "step 'ask': rejected by Ada"
    await flows.submit(executions.retry(PROJECT, execution))
    await flows.submit(executions.decide(PROJECT, execution, 0, "approved", "Ada", None))
    assert (await flows.execution(execution)).status == "completed"


async def test_a_workflow_is_a_step_of_another_down_to_its_output(flows: Flows) -> None:
    inner = await flows.keep([step("in", input="{n: parameters.n}"), step("out", order=2)], "inner")
    steps = [
        step("many", kind="workflow", workflow_id=inner, for_each="parameters.of", input="{n: item}"),
        step("one", kind="workflow", workflow_id=inner, input="{n: `9`}", order=2),
        step("last", order=3, input="{many: steps.many.output[].out.n, one: steps.one.output.out.n}"),
    ]
    execution = await flows.execute(await flows.keep(steps), of=[1, 2, 3])
    given: list[Any] = []

    def answer(task: rows.Task, payload: Any) -> Any:
        if task.step_id == "in":
            return payload
        if task.step_id == "out":
            return {"n": payload["previous"]["in"]["n"] * 10}
        given.append(payload)
        return {}

    await flows.work(answer)
    assert given == [{"many": [10, 20, 30], "one": 90}]
    assert (await flows.execution(execution)).status == "completed"


async def test_a_workflow_that_calls_itself_ends_at_the_depth_that_is_allowed(flows: Flows) -> None:
    execution = await flows.execute(await flows.keep([step("again", kind="workflow", workflow_id="workflow_w")]))
    ended = await flows.execution(execution)
    assert (ended.status, ended.error_code) == ("failed", "too_deep")


async def test_executions_of_steps_begin_a_few_in_one_transaction_whatever_they_begin_and_however_they_end(
    flows: Flows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "EXECUTIONS", 2)
    most = watch(flows, lambda changes: sum(began(*change) for change in changes))
    leaf = await flows.keep([step("leaf", condition="parameters.n > `1000`")], "leaf")
    branch = await flows.keep([step("many", kind="workflow", workflow_id=leaf, for_each="parameters.of")], "branch")
    again = step("again", kind="workflow", workflow_id=branch, for_each="parameters.of", input="parameters")
    execution = await flows.execute(await flows.keep([again]), of=list(range(12)))
    assert (await flows.execution(execution)).status == "completed"
    async with flows.world.reader.connect() as connection:
        made = await flows.world.reader.rows(connection, rows.Execution)
    assert len(made) == 1 + 12 + 12 * 12 and {each.status for each in made} == {"completed"}
    # Those that it is for, and as many that they begin.
    assert max(most) == 4


async def test_postponed_executions_can_be_seen_and_are_stopped_with_those_that_run(
    flows: Flows, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = await flows.keep([step("in")], "inner")
    outer = await flows.keep([step("many", kind="workflow", workflow_id=inner, for_each="parameters.of")])
    execution = await flows.execute(outer, of=list(range(60)))
    monkeypatch.setattr(room, "EXECUTIONS", 2)
    most = watch(flows, lambda changes: sum(stopped(*change) for change in changes))
    await flows.submit(executions.cancel(PROJECT, execution))
    assert flows.process.asked_to_stop == set(flows.process.running) and len(flows.process.running) == 60
    assert 2 <= max(most) <= 3
    await flows.work(lambda task, payload: CancelledByAgent())
    assert (await flows.execution(execution)).status == "cancelled"


async def test_an_execution_that_is_stopped_before_it_could_begin_begins_nothing(
    flows: Flows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "EXECUTIONS", 2)
    inner = await flows.keep([step("in")], "inner")
    outer = await flows.keep([step("many", kind="workflow", workflow_id=inner, for_each="parameters.of")])
    flows.world.holds_postponed = True
    execution = await flows.execute(outer, of=list(range(10)))
    assert len(flows.process.running) == 2
    await flows.submit(executions.cancel(PROJECT, execution))
    flows.world.holds_postponed = False
    await flows.world.settle()
    assert len(flows.process.running) == 2
    await flows.work(lambda task, payload: CancelledByAgent())
    async with flows.world.reader.connect() as connection:
        made = await flows.world.reader.rows(connection, rows.Execution)
    assert {each.status for each in made} == {"cancelled"} and len(made) == 11


async def test_postponed_executions_begin_after_a_restart(flows: Flows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "EXECUTIONS", 2)
    inner = await flows.keep([step("in")], "inner")
    outer = await flows.keep([step("many", kind="workflow", workflow_id=inner, for_each="parameters.of")])
    flows.world.holds_postponed = True
    await flows.execute(outer, of=list(range(10)))
    assert len(flows.process.running) == 2
    running = asyncio.ensure_future(PostponedExecutions(flows.world.workflow_selections).run(flows.world.writer))
    await flows.world.settle()
    running.cancel()
    assert len(flows.process.running) == 10


def watch(flows: Flows, measure: Callable[[list[Change]], int]) -> list[int]:
    """A measure of each transaction from now on."""
    found: list[int] = []
    flows.world.watchers.append(lambda changes: found.append(measure(changes)))
    return found


def began(before: Any, after: Any) -> bool:
    """Whether an execution of a step began."""
    return type(after) is rows.ExecutionStep and before is None and after.place == 0


def stopped(before: Any, after: Any) -> bool:
    """Whether an execution of a step was told to stop its tasks."""
    return type(after) is rows.Execution and after.phase == "cancelling" and before.phase != "cancelling"


async def test_of_two_retries_at_once_one_is_too_late(flows: Flows) -> None:
    execution = await flows.execute(await flows.keep([step("a")]))
    await flows.work(lambda task, payload: FAILURE)
    both = [flows.world.writer.write(executions.retry(PROJECT, execution)) for _ in range(2)]
    await flows.world.settle()
    assert [type(each.exception()) for each in both] == [type(None), Conflict]
    assert (await flows.execution(execution)).retries == 1
    await flows.work(lambda task, payload: {})
    assert (await flows.execution(execution)).status == "completed"


async def test_a_child_is_stopped_with_its_parent_and_when_its_time_is_over(flows: Flows) -> None:
    inner = await flows.keep([step("in")], "inner")
    outer = await flows.keep([step("one", kind="workflow", workflow_id=inner, timeout=3_000_000)])
    cancelled = await flows.execute(outer)
    await flows.submit(executions.cancel(PROJECT, cancelled))
    assert flows.process.asked_to_stop == set(flows.process.running)
    await flows.work(lambda task, payload: CancelledByAgent())
    assert (await flows.execution(cancelled)).status == "cancelled"
    late = await flows.execute(outer)
    await flows.world.pass_time(5)
    assert flows.process.asked_to_stop == set(flows.process.running)
    await flows.work(lambda task, payload: CancelledByAgent())
    ended = await flows.execution(late)
    assert (ended.status, ended.error_code) == ("failed", "timeout")


async def test_what_is_not_a_list_or_not_an_object_or_too_large_fails_the_step_and_says_so(flows: Flows) -> None:
    for n, (more, code) in enumerate(
        [
            ({"for_each": "parameters.text"}, "not_a_list"),
            ({"input": "parameters.text"}, "invalid_input"),
            ({"condition": "abs(parameters.text)"}, "invalid_expression"),
            ({"for_each": "parameters.many", "input": "item"}, "invalid_input"),
        ]
    ):
        execution = await flows.execute(await flows.keep([step("a", **more)], str(n)), text="x", many=[1, 2])
        ended = await flows.execution(execution)
        assert (ended.status, ended.error_code) == ("failed", code), more
    large = await flows.keep([step("a", for_each="parameters.many")], "large")
    execution = await flows.execute(large, many=[1, 2, 3, 4])
    await flows.work(lambda task, payload: {"x": "y" * 400_000})
    assert (await flows.execution(execution)).error_code == "output_too_large"


async def test_steps_of_what_has_begun_go_before_new_work_of_the_same_priority(flows: Flows) -> None:
    workflow = await flows.keep([step("a"), step("b", order=2)])
    await flows.execute(workflow, priority=1)
    await flows.work(lambda task, payload: {})
    assert [(task.step_id, task.turn, task.priority) for task in flows.ran] == [("a", 1, 1), ("b", 0, 1)]


async def test_a_fault_of_ours_fails_its_execution_alone(flows: Flows, monkeypatch: pytest.MonkeyPatch) -> None:
    good, bad = await flows.keep([step("a")], "good"), await flows.keep([step("a"), step("bad")], "bad")
    made = work.task

    def broken(owner: rows.Execution, step: Step, *rest: Any, **more: Any) -> Any:
        if step.id == "bad":
            raise RuntimeError("a fault")
        return made(owner, step, *rest, **more)

    monkeypatch.setattr(work, "task", broken)
    failed, fine = await flows.execute(bad), await flows.execute(good)
    await flows.work(lambda task, payload: {})
    assert (await flows.execution(failed)).error_code == "internal_error"
    assert (await flows.execution(fine)).status == "completed"


async def test_an_execution_keeps_the_version_that_it_began_with(flows: Flows) -> None:
    workflow = await flows.keep([step("a"), step("old", order=2)])
    begun = await flows.execute(workflow)
    await flows.keep([step("a"), step("new", order=2)], version=2)
    other = await flows.execute(workflow)
    await flows.work(lambda task, payload: {})
    assert {(task.execution_id, task.step_id) for task in flows.ran} == {
        *((begun, "a"), (begun, "old")),
        *((other, "a"), (other, "new")),
    }
    assert [(await flows.execution(each)).version for each in (begun, other)] == [1, 2]


async def test_items_go_on_after_a_restart_which_knows_none_of_what_was_in_memory(flows: Flows) -> None:
    steps = [step("many", for_each="parameters.of", max_parallel=2, input="{n: item}"), step("z", order=2)]
    execution = await flows.execute(await flows.keep(steps), of=list(range(20)))

    def forget() -> None:
        flows.world.lists.forget(StepKey(PROJECT, execution, 0))
        vars(flows.world.graphs)["_graphs"].clear()

    await flows.work(lambda task, payload: forget() or (FAILURE if task.item == 7 else payload))
    assert (await flows.execution(execution)).status == "failed"
    await flows.submit(executions.retry(PROJECT, execution))
    await flows.work(lambda task, payload: forget() or payload)
    assert (await flows.execution(execution)).status == "completed"
    assert await flows.output(execution, 0) == [{"n": n} for n in range(20)]
    assert sorted(task.item or 0 for task in flows.ran if task.step_id == "many") == sorted([*range(20), 7])


@pytest.mark.parametrize("kind", ["task", "workflow"])
async def test_items_go_on_after_a_restart_with_a_clock_that_was_set_back(flows: Flows, kind: str) -> None:
    inner = await flows.keep([step("in", input="parameters")], "inner")
    more = {"kind": kind, "workflow_id": inner} if kind == "workflow" else {}
    many = step("many", for_each="parameters.of", max_parallel=2, input="{n: item}", **more)
    execution = await flows.execute(await flows.keep([many]), of=list(range(6)))

    def restart() -> None:
        flows.world.clock.jump -= 3600
        vars(flows.world.ids)["_last"] = 0

    restart()
    await flows.work(lambda task, payload: FAILURE if payload["n"] == 3 else payload)
    assert (await flows.execution(execution)).status == "failed"
    restart()
    await flows.submit(executions.retry(PROJECT, execution))
    await flows.work(lambda task, payload: payload)
    assert (await flows.execution(execution)).status == "completed"
    gathered = await flows.output(execution, 0)
    assert gathered == [{"n": n} if kind == "task" else {"in": {"n": n}} for n in range(6)]


async def test_items_that_are_executions_end_with_the_time_of_their_step(flows: Flows) -> None:
    inner = await flows.keep([step("in")], "inner")
    many = step(
        "many",
        kind="workflow",
        workflow_id=inner,
        for_each="parameters.of",
        max_parallel=2,
        timeout=3_000_000,
        on_failure="continue",
    )
    execution = await flows.execute(await flows.keep([many]), of=[1, 2, 3, 4, 5])
    await flows.world.pass_time(5)
    await flows.work(lambda task, payload: CancelledByAgent())
    assert (await flows.execution(execution)).status == "completed"
    (row, *_) = await flows.steps(execution)
    assert (row.status, row.error_code, len(flows.ran)) == ("failed", "timeout", 2)


async def test_what_an_earlier_round_left_running_does_not_count_in_the_next(
    flows: Flows, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = [step("a", depends_on=[]), step("b", depends_on=["a"]), step("x")]
    execution = await flows.execute(await flows.keep(steps))
    monkeypatch.setattr(evaluation, "payload", None)
    await flows.work(lambda task, payload: {} if task.step_id == "a" else None)
    assert (await flows.execution(execution)).error_code == "internal_error"
    (left,) = flows.process.running
    assert flows.process.asked_to_stop == {left}
    monkeypatch.undo()
    await flows.submit(executions.retry(PROJECT, execution))
    await flows.work(lambda task, payload: {} if task.id == left else None)
    assert await flows.statuses(execution, 3) == ["running", "pending", "running"]
    await flows.work(lambda task, payload: {})
    assert (await flows.execution(execution)).status == "completed"

"""RunnerService.Connect as an instance meets it, over a real channel."""

import asyncio
from typing import Any

import grpc
import pytest

from agent_orchestration.v1 import agents_pb2, common_pb2, runners_pb2, tasks_pb2
from tests.api.conftest import Api, RawRunner, attempt

COMPLETED = tasks_pb2.TASK_STATUS_COMPLETED
PENDING = tasks_pb2.TASK_STATUS_PENDING
RUNNING = tasks_pb2.TASK_STATUS_RUNNING


async def test_a_task_runs_from_assignment_to_settled_outcome_with_progress_and_logs(api: Api) -> None:
    agent_id = await api.create_agent()
    async with api.runner(agent_id) as runner:
        assert runner.welcome.agent_id == agent_id
        task_id = await api.create_task(
            agent_id, payload='{"big":123456789012345678901234567890,"b":1.0,"a":"\\u0000"}'
        )
        assignment = await runner.assigned()
        assert (assignment.attempt.task_id, assignment.attempt.number) == (task_id, 1)
        assert assignment.payload == '{"big":123456789012345678901234567890,"b":1.0,"a":"\\u0000"}'
        report = runners_pb2.ProgressReport(attempt=assignment.attempt, progress=40, message="four tenths\0")
        await runner.send(progress=runners_pb2.Progress(reports=[report]))
        line = runners_pb2.LogReport(attempt=assignment.attempt, level=common_pb2.LOG_LEVEL_WARNING, message="odd\0row")
        await runner.send(log=runners_pb2.Log(reports=[line]))
        assert await runner.finish(task_id, 1, result='{"n":18446744073709551616}')
    task = await api.task(task_id)
    assert (task.status, task.progress, task.attempt) == (COMPLETED, 100, 1)
    assert task.result == '{"n":18446744073709551616}'
    assert task.progress_message == "four tenths\N{REPLACEMENT CHARACTER}"
    assert [(each.level, each.message) for each in task.logs] == [(3, "odd\N{REPLACEMENT CHARACTER}row")]
    metrics = (await api.agent(agent_id)).metrics
    assert (metrics.tasks_completed, metrics.success_rate) == (1, 100)


async def test_assignments_never_exceed_the_slots_and_go_by_priority_then_age(api: Api) -> None:
    agent_id = await api.create_agent(configuration='{"max_concurrent_tasks": 1}')
    ids = [
        await api.create_task(agent_id, priority=priority)
        for priority in (
            common_pb2.PRIORITY_LOW,
            common_pb2.PRIORITY_MEDIUM,
            common_pb2.PRIORITY_CRITICAL,
            common_pb2.PRIORITY_MEDIUM,
            common_pb2.PRIORITY_HIGH,
        )
    ]
    async with api.runner(agent_id) as runner:
        for expected in (ids[2], ids[4], ids[1], ids[3], ids[0]):
            assignment = await runner.assigned()
            assert assignment.attempt.task_id == expected
            assert await runner.finish(expected, 1)


async def test_a_report_of_a_superseded_attempt_is_refused_and_leaves_no_trace(api: Api) -> None:
    agent_id = await api.create_agent()
    task_id = await api.create_task(agent_id)
    async with api.runner(agent_id, instance_id="old") as old:
        await old.assigned()
        assert await old.finish(task_id, 1, handed_back=runners_pb2.HandedBack(reason="going"))
        second = await old.assigned()
        assert second.attempt.number == 2
        before = (await api.task(task_id)).SerializeToString(deterministic=True)
        stale = attempt(task_id, 1)
        await old.send(progress=runners_pb2.Progress(reports=[runners_pb2.ProgressReport(attempt=stale, progress=99)]))
        await old.send(log=runners_pb2.Log(reports=[runners_pb2.LogReport(attempt=stale, message="ghost")]))
        assert not await old.finish(task_id, 1, result='{"ghost":true}')
        async with api.runner(agent_id, instance_id="stranger") as stranger:
            assert not await stranger.finish(task_id, 2, result='{"stranger":true}')
        assert (await api.task(task_id)).SerializeToString(deterministic=True) == before
        assert await old.finish(task_id, 2)
        assert await old.finish(task_id, 2), "an outcome sent again is settled again"
    assert (await api.task(task_id)).result == '{"ok":true}'


async def test_hello_keeps_what_both_know_requeues_what_was_lost_and_stops_what_is_no_longer_its_own(api: Api) -> None:
    agent_id = await api.create_agent(configuration='{"max_concurrent_tasks": 2}')
    kept, lost = await api.create_task(agent_id), await api.create_task(agent_id)
    async with api.runner(agent_id) as runner:
        message = await runner.receive("assign")
        assert len(message.assign.assignments) == 2
    async with api.runner(agent_id, held=[(kept, 1), ("task_never_heard_of", 3)]) as again:
        cancel = (await again.receive("cancel")).cancel
        assert (cancel.attempt.task_id, cancel.reason) == ("task_never_heard_of", runners_pb2.CANCEL_REASON_SUPERSEDED)
        redelivered = await again.assigned()
        assert (redelivered.attempt.task_id, redelivered.attempt.number) == (lost, 2)
        assert (await api.task(kept)).attempt == 1
        assert await again.finish(kept, 1)
        assert await again.finish(lost, 2)


async def test_the_work_of_a_silent_instance_is_redone_after_its_lease_and_of_one_that_said_goodbye_at_once(
    api: Api,
) -> None:
    agent_id = await api.create_agent(configuration='{"max_concurrent_tasks": 1}')
    task_id = await api.create_task(agent_id)
    async with api.runner(agent_id, instance_id="silent") as silent:
        await silent.assigned()
        code, _ = await silent.ended()
        assert code is grpc.StatusCode.UNAVAILABLE
    async with api.runner(agent_id, instance_id="leaving") as leaving:
        assert (await leaving.assigned()).attempt.number == 2
        await leaving.send(drain=runners_pb2.Drain(goodbye=True))
        async with api.runner(agent_id, instance_id="last") as last:
            assert (await last.assigned()).attempt.number == 3
            assert await last.finish(task_id, 3)


async def test_a_deaf_instance_loses_its_assignment_to_a_good_one_and_is_not_fed(api: Api) -> None:
    agent_id = await api.create_agent(configuration='{"max_concurrent_tasks": 1}')
    async with api.runner(agent_id, instance_id="deaf") as deaf:
        task_id = await api.create_task(agent_id)
        await deaf.receive("assign")

        async def keep_renewing() -> None:
            while True:
                await deaf.status(last_assign=0)
                await asyncio.sleep(0.5)

        renewing = asyncio.create_task(keep_renewing())
        try:
            async with api.runner(agent_id, instance_id="good") as good:
                await good.status()
                sleeping = asyncio.create_task(_renew(good))
                assignment = await good.assigned()
                assert (assignment.attempt.task_id, assignment.attempt.number) == (task_id, 2)
                assert await good.finish(task_id, 2)
                for _ in range(3):
                    other = await api.create_task(agent_id)
                    assert (await good.assigned()).attempt.task_id == other
                    assert await good.finish(other, 1)
                sleeping.cancel()
        finally:
            renewing.cancel()


async def _renew(runner: RawRunner) -> None:
    while True:
        await asyncio.sleep(0.5)
        await runner.status(last_assign=0)


async def test_an_assignment_that_a_status_leaves_out_goes_back(api: Api) -> None:
    agent_id = await api.create_agent(configuration='{"max_concurrent_tasks": 1}')
    task_id = await api.create_task(agent_id)
    async with api.runner(agent_id) as runner:
        await runner.assigned()
        await runner.status(held=[], last_assign=1)
        stopped = (await runner.receive("cancel")).cancel
        assert (stopped.attempt, stopped.reason) == (attempt(task_id, 1), runners_pb2.CANCEL_REASON_SUPERSEDED)
        assert (await runner.assigned()).attempt.number == 2
        assert await runner.finish(task_id, 2)


async def test_two_first_hellos_of_one_type_and_name_become_one_agent_with_the_settings_of_the_first(api: Api) -> None:
    async def hello(instance_id: str) -> str:
        runner = RawRunner(api.runners.Connect(metadata=api.admin))
        await runner.hello(
            type="worker", name="The one", instance_id=instance_id, configuration='{"max_concurrent_tasks":3}'
        )
        agent_id = runner.welcome.agent_id
        assert runner.welcome.configure.max_concurrent_tasks == 3
        runner.call.cancel()
        return agent_id

    found = await asyncio.gather(*(hello(f"instance_{number}") for number in range(8)))
    assert len(set(found)) == 1
    agents: agents_pb2.ListAgentsResponse = await api.agents.ListAgents(
        agents_pb2.ListAgentsRequest(), metadata=api.admin
    )
    assert [agent.id for agent in agents.data] == found[:1]


async def test_a_posted_agent_is_found_by_hello_and_a_second_post_of_the_name_is_another(api: Api) -> None:
    first, second = await api.create_agent("Twin"), await api.create_agent("Twin")
    assert first != second
    runner = RawRunner(api.runners.Connect(metadata=api.admin))
    await runner.hello(type="worker", name="Twin", instance_id="i")
    assert runner.welcome.agent_id == first
    assert (await api.agent(first)).status == agents_pb2.AGENT_STATUS_ACTIVE
    assert (await api.agent(second)).status == agents_pb2.AGENT_STATUS_INITIALIZING
    runner.call.cancel()


BAD_BEGINNINGS: list[tuple[list[dict[str, Any]], grpc.StatusCode]] = [
    ([{"status": runners_pb2.Status(number=1)}], grpc.StatusCode.INVALID_ARGUMENT),
    ([{}], grpc.StatusCode.INVALID_ARGUMENT),
    ([{"hello": runners_pb2.Hello(instance_id="i")}], grpc.StatusCode.INVALID_ARGUMENT),
    ([{"hello": runners_pb2.Hello(type="t", name="n")}], grpc.StatusCode.INVALID_ARGUMENT),
    ([{"hello": runners_pb2.Hello(agent_id="agent_x", instance_id="i")}], grpc.StatusCode.NOT_FOUND),
    (
        [{"hello": runners_pb2.Hello(type="t", name="n", instance_id="i", configuration='{"timeout":0}')}],
        grpc.StatusCode.INVALID_ARGUMENT,
    ),
    (
        [{"hello": runners_pb2.Hello(type="t", name="n", instance_id="i", protocol_version=9)}],
        grpc.StatusCode.INVALID_ARGUMENT,
    ),
    (
        [{"hello": runners_pb2.Hello(type="t", name="n", instance_id="i")}] * 2,
        grpc.StatusCode.INVALID_ARGUMENT,
    ),
]


@pytest.mark.parametrize(("messages", "code"), BAD_BEGINNINGS)
async def test_a_bad_beginning_ends_the_stream_with_a_reason(
    api: Api, messages: list[dict[str, Any]], code: grpc.StatusCode
) -> None:
    runner = RawRunner(api.runners.Connect(metadata=api.admin))
    for message in messages:
        await runner.send(**message)
    ended, details = await runner.ended()
    assert ended is code
    assert details


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        ({"result": "[1]"}, "invalid_result"),
        ({"result": "{"}, "invalid_result"),
        ({"result": '{"n":NaN}'}, "invalid_result"),
        ({"result": '{"x":"' + "y" * 1024 * 1024 + '"}'}, "result_too_large"),
        ({}, "invalid_result"),
        ({"failure": runners_pb2.Failure(code="task_error", message="boo\0")}, "task_error"),
    ],
)
async def test_a_result_that_cannot_be_kept_fails_the_task_with_a_code(
    api: Api, outcome: dict[str, Any], code: str
) -> None:
    agent_id = await api.create_agent()
    async with api.runner(agent_id) as runner:
        task_id = await api.create_task(agent_id)
        await runner.assigned()
        reported = runners_pb2.Outcome(attempt=attempt(task_id, 1), **outcome)
        await runner.send(outcomes=runners_pb2.Outcomes(outcomes=[reported]))
        await runner.receive("settled")
    task = await api.task(task_id)
    assert (task.status, task.error.code) == (tasks_pb2.TASK_STATUS_FAILED, code)
    assert task.error.message


async def test_tasks_of_a_type_that_the_instance_does_not_run_stay_pending_and_hold_up_nothing(api: Api) -> None:
    agent_id = await api.create_agent(configuration='{"max_concurrent_tasks": 1}')
    stuck = [await api.create_task(agent_id) for _ in range(3)]
    async with api.runner(agent_id, types=["other"]) as runner:
        request = tasks_pb2.CreateTaskRequest(agent_id=agent_id, type="other")
        created: tasks_pb2.CreateTaskResponse = await api.tasks.CreateTask(request, metadata=api.admin)
        assert (await runner.assigned()).attempt.task_id == created.data.id
        assert await runner.finish(created.data.id, 1)
    assert {(await api.task(task_id)).status for task_id in stuck} == {PENDING}


async def test_instances_that_run_different_types_are_both_kept_busy(api: Api) -> None:
    agent_id = await api.create_agent(configuration='{"max_concurrent_tasks": 1}')

    async def create(type_: str) -> str:
        request = tasks_pb2.CreateTaskRequest(agent_id=agent_id, type=type_)
        created: tasks_pb2.CreateTaskResponse = await api.tasks.CreateTask(request, metadata=api.admin)
        return created.data.id

    async with (
        api.runner(agent_id, instance_id="one", types=["work"]) as one,
        api.runner(agent_id, instance_id="two", types=["other"]) as two,
    ):
        others = [await create("other") for _ in range(4)]
        work = await create("work")
        assert (await one.assigned()).attempt.task_id == work
        assert await one.finish(work, 1)
        for other in others:
            assert (await two.assigned()).attempt.task_id == other
            assert await two.finish(other, 1)


async def test_more_free_slots_than_one_claim_takes_are_all_filled(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ao_server.engine.dispatch.CLAIMED_AT_ONCE", 4)
    agent_id = await api.create_agent(configuration='{"max_concurrent_tasks": 10}')
    created = [await api.create_task(agent_id) for _ in range(12)]
    assigned: list[str] = []
    async with api.runner(agent_id) as runner:
        while len(assigned) < 10:
            message = await runner.receive("assign")
            assigned += [assignment.attempt.task_id for assignment in message.assign.assignments]
    assert assigned == created[:10]


@pytest.mark.parametrize("percent", [5e-324, 1e-12, 0.0])
async def test_a_progress_too_small_to_guess_from_gives_no_estimate(api: Api, percent: float) -> None:
    agent_id = await api.create_agent()
    async with api.runner(agent_id) as runner:
        task_id = await api.create_task(agent_id)
        assignment = await runner.assigned()
        report = runners_pb2.ProgressReport(attempt=assignment.attempt, progress=percent)
        await runner.send(progress=runners_pb2.Progress(reports=[report]))
        line = runners_pb2.LogReport(attempt=assignment.attempt, message="after it")
        await runner.send(log=runners_pb2.Log(reports=[line]))
        task = await anext(
            response.data
            async for response in api.tasks.WatchTask(tasks_pb2.WatchTaskRequest(task_id=task_id), metadata=api.admin)
            if response.data.logs
        )
        assert not task.HasField("estimated_completion")
        assert await runner.finish(task_id, 1)

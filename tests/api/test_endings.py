"""Attempts that their process does not end: the server does, and nothing said afterwards counts."""

import asyncio
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from agent_orchestration.v1 import runners_pb2, tasks_pb2
from tests.api.conftest import Api, RawRunner, attempt

CANCELLED = tasks_pb2.TASK_STATUS_CANCELLED
FAILED = tasks_pb2.TASK_STATUS_FAILED


async def cancel(api: Api, task_id: str) -> None:
    await api.tasks.CancelTask(tasks_pb2.CancelTaskRequest(task_id=task_id), metadata=api.admin)


async def final(api: Api, task_id: str, runner: RawRunner, *held: tuple[str, int]) -> tasks_pb2.Task:
    """The task once it is final; meanwhile the process keeps its lease and says that it holds these attempts."""
    async with asyncio.timeout(20):
        while (task := await api.task(task_id)).status in (
            tasks_pb2.TASK_STATUS_PENDING,
            tasks_pb2.TASK_STATUS_RUNNING,
        ):
            await runner.status(held=held, last_assign=1)
            await asyncio.sleep(0.1)
    return task


async def test_an_attempt_that_its_process_lets_run_on_fails_after_timeout_and_grace(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ao_server.engine.transitions.TIMEOUT_GRACE", 200_000)
    agent_id = await api.create_agent()
    timeout = Duration()
    timeout.FromMilliseconds(300)
    task_id = await api.create_task(agent_id, timeout=timeout)
    async with api.runner(agent_id) as runner:
        assert (await runner.assigned()).timeout == timeout
        task = await final(api, task_id, runner, (task_id, 1))
        assert (task.status, task.error.code, task.failures) == (FAILED, "timeout", 1)
        told = (await runner.receive("cancel")).cancel
        assert (told.attempt.task_id, told.reason) == (task_id, runners_pb2.CANCEL_REASON_SUPERSEDED)
        before = task.SerializeToString(deterministic=True)
        await runner.send(log=runners_pb2.Log(reports=[runners_pb2.LogReport(attempt=attempt(task_id, 1))]))
        assert not await runner.finish(task_id, 1)
        assert (await api.task(task_id)).SerializeToString(deterministic=True) == before


async def test_the_timeout_is_the_tasks_over_the_agents_over_an_hour(api: Api) -> None:
    own = await api.create_agent("own", configuration='{"timeout": 120.5}')
    plain = await api.create_agent("plain")
    given: list[tuple[str, dict[str, Any], float]]
    given = [(own, {"timeout": Duration(seconds=7)}, 7), (own, {}, 120.5), (plain, {}, 3600)]
    for agent_id, fields, seconds in given:
        await api.create_task(agent_id, **fields)
        async with api.runner(agent_id) as runner:
            assignment = await runner.assigned()
            assert assignment.timeout.ToMilliseconds() == seconds * 1000
            await runner.finish(assignment.attempt.task_id, assignment.attempt.number)


async def test_a_cancel_that_is_not_confirmed_in_time_is_carried_out_without_the_process(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ao_server.engine.registry.CONFIRM_MICROSECONDS", 200_000)
    agent_id = await api.create_agent()
    task_id = await api.create_task(agent_id)
    async with api.runner(agent_id) as runner:
        await runner.assigned()
        await cancel(api, task_id)
        task = await final(api, task_id, runner, (task_id, 1))
        assert (task.status, task.error.code) == (CANCELLED, "cancelled")
        assert "did not confirm" in task.error.message
        await runner.receive("cancel")
        await runner.receive("cancel")
        assert not await runner.finish(task_id, 1)
    assert (await api.task(task_id)).result == ""


async def test_a_task_that_was_to_stop_is_cancelled_not_requeued_when_its_process_hands_it_back_or_forgets_it(
    api: Api,
) -> None:
    agent_id = await api.create_agent()
    handed_back, forgotten = await api.create_task(agent_id), await api.create_task(agent_id)
    async with api.runner(agent_id) as runner:
        await runner.receive("assign")
        for task_id in (handed_back, forgotten):
            await cancel(api, task_id)
            await runner.receive("cancel")
        assert await runner.finish(handed_back, 1, handed_back=runners_pb2.HandedBack())
        assert (await api.task(handed_back)).status == CANCELLED
    async with api.runner(agent_id):
        assert (await api.task(forgotten)).status == CANCELLED


async def test_a_reconnecting_process_is_told_again_to_stop_what_was_cancelled(api: Api) -> None:
    agent_id = await api.create_agent()
    task_id = await api.create_task(agent_id)
    async with api.runner(agent_id) as runner:
        await runner.assigned()
    await cancel(api, task_id)
    async with api.runner(agent_id, held=[(task_id, 1)]) as again:
        told = (await again.receive("cancel")).cancel
        assert (told.attempt.task_id, told.reason) == (task_id, runners_pb2.CANCEL_REASON_REQUESTED)
        assert await again.finish(task_id, 1, cancelled=runners_pb2.Cancelled())
    assert (await api.task(task_id)).status == CANCELLED

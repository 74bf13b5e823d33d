"""Event streams over gRPC: gapless from any cursor, bounded, and refused with a code where that cannot be."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import grpc
import pytest

from agent_orchestration.v1 import (
    events_pb2,
    executions_pb2,
    monitoring_pb2,
    runners_pb2,
    tasks_pb2,
    workflows_pb2,
    workflows_pb2_grpc,
)
from tests.api.conftest import Api

TASK_EVENTS = events_pb2.CHANNEL_TASK_EVENTS
AGENT_EVENTS = events_pb2.CHANNEL_AGENT_EVENTS
WORKFLOW_EVENTS = events_pb2.CHANNEL_WORKFLOW_EVENTS
SYSTEM_EVENTS = events_pb2.CHANNEL_SYSTEM_EVENTS


class Watch:
    """One WatchEvents stream; the first answer is read when it is opened."""

    def __init__(self, call: Any) -> None:
        self.call = call
        self.cursor = ""
        self._events: list[events_pb2.Event] = []

    async def open(self) -> "Watch":
        first: monitoring_pb2.WatchEventsResponse = await self.call.read()
        assert not first.events
        self.cursor = first.cursor
        return self

    async def take(self, count: int) -> list[events_pb2.Event]:
        async with asyncio.timeout(20):
            while len(self._events) < count:
                response: monitoring_pb2.WatchEventsResponse = await self.call.read()
                self._events += response.events
        taken, self._events = self._events[:count], self._events[count:]
        return taken


async def watch(api: Api, after: str | None = None, *filters: events_pb2.EventFilter) -> Watch:
    request = monitoring_pb2.WatchEventsRequest(after=after, filters=filters)
    return await Watch(api.monitoring.WatchEvents(request, metadata=api.admin)).open()


def types(events: list[events_pb2.Event]) -> list[str]:
    return [events_pb2.EventType.Name(event.type).removeprefix("EVENT_TYPE_").lower() for event in events]


async def run_one(api: Api, agent_id: str) -> str:
    async with api.runner(agent_id) as runner:
        task_id = await api.create_task(agent_id)
        await runner.assigned()
        assert await runner.finish(task_id, 1)
        await runner.send(drain=runners_pb2.Drain(goodbye=True))
        await runner.call.done_writing()
        assert (await runner.ended())[0] is grpc.StatusCode.OK
    return task_id


async def test_a_watcher_resumes_behind_any_event_without_gap_or_double(api: Api) -> None:
    agent_id = await api.create_agent()
    live = await watch(api)
    task_ids = [await api.create_task(agent_id) for _ in range(60)]
    events = await live.take(60)
    assert [event.task_id for event in events] == task_ids
    assert events[0].task.status == tasks_pb2.TASK_STATUS_PENDING and not events[0].task.HasField("payload")
    for place in (0, 17, 58):
        resumed = await watch(api, events[place].cursor)
        assert resumed.cursor == events[place].cursor
        rest = await resumed.take(59 - place)
        assert [event.cursor for event in rest] == [event.cursor for event in events[place + 1 :]]
    from_before = await watch(api, live.cursor)
    assert [event.cursor for event in await from_before.take(60)] == [event.cursor for event in events]


async def test_events_of_a_workflow_tell_of_each_step_and_of_what_ran_for_it(api: Api) -> None:
    workflows: Any = workflows_pb2_grpc.WorkflowServiceStub(api.channel)
    agent_id = await api.create_agent()
    steps = [workflows_pb2.WorkflowStep(id=id, agent_type="worker", type="work", order=n) for n, id in enumerate("ab")]
    made = await workflows.CreateWorkflow(
        workflows_pb2.CreateWorkflowRequest(name="Two", steps=steps), metadata=api.admin
    )
    live = await watch(api, None, events_pb2.EventFilter(channel=WORKFLOW_EVENTS, workflow_id=made.data.id))
    execute = workflows_pb2.ExecuteWorkflowRequest(workflow_id=made.data.id)
    execution_id = (await workflows.ExecuteWorkflow(execute, metadata=api.admin)).data.id
    ran: list[str] = []
    async with api.runner(agent_id) as runner:
        for _ in "ab":
            ran.append((await runner.assigned()).attempt.task_id)
            assert await runner.finish(ran[-1], 1)
    events = await live.take(6)
    assert types(events) == [
        "workflow_started",
        *["workflow_step_started", "workflow_step_completed"] * 2,
        "workflow_completed",
    ]
    assert {(each.workflow_id, each.execution_id) for each in events} == {(made.data.id, execution_id)}
    steps_told = [each.workflow_change.step for each in events]
    assert [each.id for each in steps_told] == ["", "a", "a", "b", "b", ""]
    assert [list(each.task_ids) for each in steps_told] == [[], [], ran[:1], [], ran[1:], []]
    assert steps_told[2].status == executions_pb2.STEP_STATUS_COMPLETED and steps_told[2].HasField("duration")
    assert not steps_told[2].HasField("attempts")


async def test_a_watcher_far_behind_is_served_from_the_store(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ao_server.engine.feed.KEPT_EVENTS", 5)
    monkeypatch.setattr("ao_server.engine.feed.READ_AT_ONCE", 7)
    agent_id = await api.create_agent()
    start = (await watch(api)).cursor
    task_ids = [await api.create_task(agent_id) for _ in range(40)]
    assert [event.task_id for event in await (await watch(api, start)).take(40)] == task_ids


async def test_channels_carry_what_they_say_and_an_event_comes_once(api: Api) -> None:
    agent_id, other = await api.create_agent("One"), await api.create_agent("Two")
    mine = events_pb2.EventFilter(channel=AGENT_EVENTS, agent_id=agent_id)
    system = events_pb2.EventFilter(channel=SYSTEM_EVENTS)
    of_agent, of_system = await watch(api, None, mine, mine), await watch(api, None, system)
    both = await watch(api, None, system, mine)
    await run_one(api, other)
    task_id = await run_one(api, agent_id)
    of_task = await watch(api, of_agent.cursor, events_pb2.EventFilter(channel=TASK_EVENTS, task_id=task_id))
    lifetime = ["agent_status_change", "task_created", "task_started", "task_completed", "agent_status_change"]
    assert types(await of_agent.take(5)) == lifetime
    assert types(await of_task.take(3)) == lifetime[1:4]
    told = ["agent_status_change", "task_completed", "agent_status_change"]
    assert types(await of_system.take(6)) == told * 2
    seen = await both.take(8)
    assert [event.channel for event in seen[3:]] == [SYSTEM_EVENTS, AGENT_EVENTS, AGENT_EVENTS] + [SYSTEM_EVENTS] * 2


async def test_a_task_is_watched_until_it_is_final(api: Api) -> None:
    agent_id = await api.create_agent()

    async def snapshots(task_id: str) -> AsyncGenerator[tasks_pb2.Task, None]:
        request = tasks_pb2.WatchTaskRequest(task_id=task_id)
        async for response in api.tasks.WatchTask(request, metadata=api.admin):
            yield response.data

    async with api.runner(agent_id, types=["work"]) as runner:
        task_id = await api.create_task(agent_id)
        async with aclosing(snapshots(task_id)) as watched:
            first = await anext(watched)
            assert first.status in (tasks_pb2.TASK_STATUS_PENDING, tasks_pb2.TASK_STATUS_RUNNING)
            await runner.assigned()
            assert await runner.finish(task_id, 1)
            last = [task async for task in watched][-1]
    assert (last.status, last.result) == (tasks_pb2.TASK_STATUS_COMPLETED, '{"ok":true}')
    assert [task.status async for task in snapshots(task_id)] == [tasks_pb2.TASK_STATUS_COMPLETED]


@pytest.mark.parametrize("odd", ["abc", "0", "-1", str(2**63), "ffffffff000000000001", "é"])
async def test_a_cursor_that_is_not_of_this_feed_is_invalid(api: Api, odd: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await watch(api, odd)
    assert refusal.value.code() is grpc.StatusCode.OUT_OF_RANGE


async def test_a_cursor_of_the_future_is_refused(api: Api) -> None:
    cursor = (await watch(api)).cursor
    ahead = f"{cursor[:-12]}{int(cursor[-12:], 16) + 10**6:012x}"
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await watch(api, ahead)
    assert refusal.value.code() is grpc.StatusCode.OUT_OF_RANGE
    assert "ahead" in (refusal.value.details() or "")


async def test_a_filter_without_a_channel_is_refused_by_its_name(api: Api) -> None:
    filters = [events_pb2.EventFilter()]
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await watch(api, None, *filters)
    assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "filters[0].channel" in (refusal.value.details() or "")

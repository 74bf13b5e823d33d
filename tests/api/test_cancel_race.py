"""Cancels that meet the dispatch of their task: whichever comes first, the answer is kept."""

import asyncio
import random

from agent_orchestration.v1 import runners_pb2, tasks_pb2
from tests.api.conftest import Api, RawRunner

CANCELLED = tasks_pb2.TASK_STATUS_CANCELLED
COMPLETED = tasks_pb2.TASK_STATUS_COMPLETED
COUNT = 150


async def test_what_was_answered_as_cancelled_never_completes_however_close_the_dispatch_was(api: Api) -> None:
    dice = random.Random(1)
    agent_id = await api.create_agent(configuration='{"max_concurrent_tasks": 2}')
    async with api.runner(agent_id) as runner:
        working = asyncio.create_task(work(runner))
        answers: dict[str, int] = {}

        async def create_and_cancel() -> None:
            task_id = await api.create_task(agent_id)
            await asyncio.sleep(dice.uniform(0, 0.02))
            request = tasks_pb2.CancelTaskRequest(task_id=task_id)
            try:
                response = await api.tasks.CancelTask(request, metadata=api.admin)
            except Exception:
                answers[task_id] = COMPLETED
            else:
                answers[task_id] = response.data.status

        for _ in range(COUNT // 5):
            await asyncio.gather(*(create_and_cancel() for _ in range(5)))
        async with asyncio.timeout(30):
            while True:
                statuses = {task_id: (await api.task(task_id)).status for task_id in answers}
                if set(statuses.values()) <= {CANCELLED, COMPLETED}:
                    break
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
    for task_id, answer in answers.items():
        if answer in (CANCELLED, COMPLETED):
            assert statuses[task_id] == answer
    assert CANCELLED in statuses.values()


async def work(runner: RawRunner) -> None:
    """Completes what is assigned after a moment, unless it was asked to stop in the meantime."""
    stopped: set[tuple[str, int]] = set()
    endings: set[asyncio.Task[None]] = set()

    async def end(attempt: runners_pb2.Attempt) -> None:
        await asyncio.sleep(0.005)
        key = (attempt.task_id, attempt.number)
        outcome = runners_pb2.Outcome(attempt=attempt)
        if key in stopped:
            outcome.cancelled.SetInParent()
        else:
            outcome.result = "{}"
        await runner.send(outcomes=runners_pb2.Outcomes(outcomes=[outcome]))

    while True:
        message = await runner.call.read()
        if message.HasField("cancel"):
            stopped.add((message.cancel.attempt.task_id, message.cancel.attempt.number))
        for each in message.assign.assignments:
            ending = asyncio.create_task(end(each.attempt))
            endings.add(ending)
            ending.add_done_callback(endings.discard)

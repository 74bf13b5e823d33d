"""Executions to which several things happen in one transaction."""

from ao_server.engine.reports import CancelledByAgent, Completed
from ao_server.engine.workflows import executions
from tests.store.fleet_world import PROJECT
from tests.store.workflow_world import Flows, step


async def test_a_cancel_right_behind_the_retry_of_a_cancelled_execution_is_not_lost(flows: Flows) -> None:
    execution = await flows.execute(await flows.keep([step("a")]))
    await flows.submit(executions.cancel(PROJECT, execution))
    await flows.work(lambda task, payload: CancelledByAgent())
    assert (await flows.execution(execution)).status == "cancelled"
    wishes = [executions.retry(PROJECT, execution), executions.cancel(PROJECT, execution)]
    both = list(map(flows.world.writer.write, wishes))
    await flows.world.settle()
    assert [each.exception() for each in both] == [None, None]
    await flows.work(lambda task, payload: CancelledByAgent() if task.id in flows.process.asked_to_stop else None)
    assert (await flows.execution(execution)).status == "cancelled"


async def test_a_cancel_reaches_a_child_that_goes_on_in_the_same_moment(flows: Flows) -> None:
    skipped = [step(f"no-{n}", condition="parameters.no", order=2 + n) for n in range(5)]
    inner = await flows.keep([step("a"), *skipped, step("ask", kind="approval", order=99)], "inner")
    execution = await flows.execute(await flows.keep([step("one", kind="workflow", workflow_id=inner)]))
    (task_id,) = flows.process.running
    flows.world.submit(executions.cancel(PROJECT, execution))
    flows.world.end(flows.process, task_id, Completed("{}"))
    await flows.world.settle()
    assert (await flows.execution(execution)).status == "cancelled"

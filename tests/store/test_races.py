"""What two things at once, in an unlucky order, must not do to each other."""

from typing import Any

import pytest

from ao_server.engine import administration, cancellation, intake, leases, reports, transitions
from ao_server.engine.explanations import explain
from ao_server.engine.registry import Instance
from ao_server.engine.reports import Completed, HandedBack
from ao_server.engine.sessions import AgentKey, Attempt, InstanceKey, Session, TaskType
from ao_server.engine.transitions import MAX_DELIVERIES
from ao_server.store import agents, rows, tasks
from ao_server.store.changes import Changes, Found, Key, Operation
from tests.store.fleet_world import LEASE, PROJECT, Process, World


async def register(world: World, configuration: str = "{}", type_: str = "t") -> rows.Agent:
    made = world.submit(intake.create_agent(intake.NewAgent(PROJECT, "name", type_, configuration), world.ids))
    await world.settle()
    return made.result()


async def create(world: World, agent: rows.Agent | None, type_: str = "a", **fields: Any) -> rows.Task:
    agent_type = "t" if agent is None else None
    new = intake.NewTask(PROJECT, agent.id if agent else None, type_, 2, "{}", agent_type=agent_type, **fields)
    made = world.submit(intake.create_task(new, world.ids))
    await world.settle()
    return made.result()


async def connect(world: World, agent: rows.Agent, name: str = "i1", types: frozenset[str] | None = None) -> Process:
    process = Process(InstanceKey(PROJECT, agent.id, name), types, limit=0)
    world.processes.append(process)
    world.connect(process)
    await world.settle()
    return process


async def set_mode(world: World, agent: rows.Agent, mode: str) -> None:
    world.submit(administration.set_mode(AgentKey(PROJECT, agent.id), mode, world.registry.is_present))
    await world.settle()


async def make_suspect(world: World, task: rows.Task) -> None:
    def decide(found: Found, now: int) -> Changes[None]:
        row = found.get(rows.Task, PROJECT, task.id)
        assert row is not None
        after = rows.copy_of(row)
        after.deliveries = 2
        return Changes(None, [after])

    world.submit(Operation(decide, keys=[Key(rows.Task, (PROJECT, task.id))]))
    await world.settle()


async def test_a_process_kept_free_for_a_task_is_used_again_once_that_is_cancelled(world: World) -> None:
    agent = await register(world)
    process = await connect(world, agent)
    await create(world, agent)
    await set_mode(world, agent, "paused")
    suspect = await create(world, agent)
    await make_suspect(world, suspect)
    waiting = await create(world, agent)
    await set_mode(world, agent, "serving")
    assert waiting.id not in process.running and suspect.id not in process.running
    world.submit(cancellation.cancel(PROJECT, suspect.id, lambda task: None))
    await world.settle()
    assert waiting.id in process.running


async def test_a_process_kept_free_for_a_task_is_used_again_once_that_has_gone_to_another_agent(world: World) -> None:
    agent, other = await register(world), await register(world)
    process = await connect(world, agent)
    await create(world, agent)
    await set_mode(world, agent, "paused")
    suspect = await create(world, None)
    await make_suspect(world, suspect)
    waiting = await create(world, agent)
    await set_mode(world, agent, "serving")
    assert waiting.id not in process.running
    second = await connect(world, other, "i2")
    assert suspect.id in second.running
    assert waiting.id in process.running


async def test_a_process_of_some_types_does_not_look_for_what_is_not_there(world: World) -> None:
    agent = await register(world, '{"max_concurrent_tasks": 3}')
    process = await connect(world, agent, types=frozenset("a"))
    looks = world.selections.looks
    for number in range(5):
        await create(world, agent, "b")
        assert world.selections.looks == looks, number
    await create(world, agent, "a")
    assert len(process.running) == 1


async def test_what_a_transaction_saw_of_a_queue_that_was_not_committed_is_looked_at_anew(world: World) -> None:
    agent = await register(world)
    process = await connect(world, agent)
    await set_mode(world, agent, "paused")
    world.dispatcher.forget_heads()
    task = await create(world, agent)
    world.failures.append("commit")
    # In one transaction: a queue that is looked into once its only task is gone.
    world.submit(cancellation.cancel(PROJECT, task.id, lambda task: None))
    await set_mode(world, agent, "serving")
    assert (await stored(world, task)).status == "pending"
    await set_mode(world, agent, "serving")
    assert task.id in process.running


@pytest.mark.parametrize("was_there", [False, True])
async def test_a_long_queue_is_taken_in_order_while_more_comes(
    was_there: bool, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ao_server.engine.dispatch.LOOKED_AT", 3)
    monkeypatch.setattr("ao_server.engine.queue_heads.LOOKED_AT", 3)
    agent = await register(world, '{"max_concurrent_tasks": 1}')
    process = await connect(world, agent) if was_there else None
    waiting = [await create(world, agent) for _ in range(9)]
    process = process or await connect(world, agent)
    taken: list[str] = []
    while process.running:
        (task_id,) = process.running
        taken.append(task_id)
        if len(taken) < 20:
            waiting.append(await create(world, agent))
        world.end(process, task_id, Completed("{}"))
        await world.settle()
    assert taken == [task.id for task in waiting]


async def test_nothing_is_remembered_of_a_deleted_agent(world: World) -> None:
    known: Any = world.dispatcher
    before = len(known._heads)
    for name in ("i1", "i2", "i3"):
        agent = await register(world, type_=f"type {name}")
        process = await connect(world, agent, name, frozenset("a") if name == "i1" else None)
        task = await create(world, agent)
        assert task.id in process.running
        assert known._claims and len(known._heads) > before
        world.delete(agent)
        await world.settle()
    assert not known._claims and len(known._heads) == before


def instance_of(world: World, process: Process) -> Instance:
    instance = world.registry.find(process.key)
    assert instance is not None
    return instance


async def stored(world: World, task: rows.Task) -> rows.Task:
    found = await tasks.get(world.reader, PROJECT, task.id)
    assert found is not None
    return found


async def test_a_process_that_comes_back_while_its_work_is_to_be_taken_from_it_keeps_it(world: World) -> None:
    agent = await register(world)
    process = await connect(world, agent)
    task = await create(world, agent)
    await make_suspect(world, task)
    instance = instance_of(world, process)
    deadlines, alone = dict(instance.deadlines), set(instance.alone)
    world.clock.time += LEASE
    world.do(world.fleet.sweep_once())
    await world.turn()
    process.renewed_at = world.clock.monotonic()
    world.connect(process)
    await world.settle()
    assert process.running == {task.id: 1}
    row = await stored(world, task)
    assert (row.status, row.instance_id, row.attempt) == ("running", "i1", 1)
    back = instance_of(world, process)
    assert back is not instance and not back.expired
    assert (back.held, back.deadlines, back.alone) == ({task.id: 1}, deadlines, alone)


async def test_work_of_a_process_whose_comeback_failed_is_taken_from_it_in_the_end(world: World) -> None:
    agent = await register(world)
    process = await connect(world, agent)
    task = await create(world, agent)
    world.clock.time += LEASE
    world.registry.expire()
    world.failures.append("begin")
    world.connect(process)
    await world.settle()
    assert process.session is None
    world.die(process)
    await world.pass_time(20)
    assert (await stored(world, task)).status == "pending"


async def test_a_wall_clock_that_is_set_does_not_end_attempts(world: World) -> None:
    agent = await register(world)
    process = await connect(world, agent)
    task = await create(world, agent)
    world.clock.jump = 10 * 86_400.0
    report = reports.ProgressReport(Attempt(task.id, 1), 50.0, None)
    world.submit(reports.progress(process.key, [report]))
    await world.settle()
    assert world.registry.overdue() == []
    world.clock.jump = -10 * 86_400.0
    world.submit(cancellation.cancel(PROJECT, task.id, lambda task: None))
    await world.settle()
    assert world.registry.overdue() == []
    world.clock.time += 30.0
    assert world.registry.overdue() == [(instance_of(world, process), Attempt(task.id, 1))]


async def test_a_hello_that_is_cut_off_behind_its_commit_leaves_no_active_agent(world: World) -> None:
    agent = await register(world)
    hello = world.do(world.fleet.hello(InstanceKey(PROJECT, agent.id, "i1"), [TaskType("*")], {}))
    await world.turn()
    world.writer.step()
    hello.cancel()
    await world.settle()
    await world.pass_time(20)
    found = await agents.get(world.reader, PROJECT, agent.id)
    assert found is not None and found.status == "inactive"
    assert not list(world.registry)


async def test_a_limit_that_is_changed_while_a_process_says_hello_is_the_one_that_counts(world: World) -> None:
    agent = await register(world, '{"max_concurrent_tasks": 5}')
    process = Process(InstanceKey(PROJECT, agent.id, "i1"), None, limit=0)
    world.processes.append(process)
    world.connect(process)
    await world.turn()
    update = administration.AgentUpdate(configuration='{"max_concurrent_tasks": 2}')
    world.submit(administration.update(AgentKey(PROJECT, agent.id), update, world.fleet.configure))
    await world.settle()
    assert process.session is not None and process.session.limit == 2


async def test_a_newer_attempt_is_not_handed_back_for_an_older_one_that_was_missing(world: World) -> None:
    agent = await register(world)
    process = await connect(world, agent)
    task = await create(world, agent)
    world.end(process, task.id, HandedBack())
    await world.settle()
    assert process.running == {task.id: 2}
    world.submit(leases.give_back(process.key, [Attempt(task.id, 1)]))
    await world.settle()
    assert (await stored(world, task)).attempt == 2
    world.submit(leases.give_back(process.key, [Attempt(task.id, 2)]))
    await world.settle()
    assert (await stored(world, task)).attempt == 3


async def test_a_stream_that_was_ended_does_not_renew_the_lease(world: World) -> None:
    agent = await register(world)
    process = await connect(world, agent)
    session = process.session
    assert session is not None
    expires_at = instance_of(world, process).expires_at
    session.end(RuntimeError("a reason"))
    world.clock.time += 1.0
    world.do(world.fleet.status(session, 1, {}, 0, 10))
    await world.turn()
    assert instance_of(world, process).expires_at == expires_at


async def test_a_stream_that_takes_over_within_a_claim_is_given_nothing_in_front_of_its_welcome(world: World) -> None:
    agent = await register(world)
    process = await connect(world, agent)
    newer = Session("session_2", process.key, [TaskType("*")], limit=10)
    await set_mode(world, agent, "paused")
    task = await create(world, agent)
    world.dispatcher.meanwhile = lambda: (world.registry.attach(newer), None)[1]
    await set_mode(world, agent, "serving")
    assert not newer.outbox and (await stored(world, task)).status == "pending"


async def test_an_agent_whose_claims_raise_does_not_keep_others_from_writing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = await register(world), await register(world)
    first, second = await connect(world, bad, "i1"), await connect(world, good, "i2")
    claim, is_bad = transitions.claim, [True]
    tries: list[str] = []

    def claim_or_raise(task: rows.Task, agent_id: str, *more: Any) -> Changes[rows.Task]:
        if agent_id == bad.id:
            tries.append(task.id)
            if is_bad[0]:
                raise RuntimeError("a bug")
        return claim(task, agent_id, *more)

    monkeypatch.setattr(transitions, "claim", claim_or_raise)
    new = [intake.NewTask(PROJECT, agent.id, "a", 2, "{}") for agent in (bad, good)]
    made = world.submit(intake.create_tasks(new, world.ids))
    await world.settle()
    assert len(made.result()) == 2 and len(second.running) == 1 and not first.running
    count = len(tries)
    for _ in range(5):
        task = await create(world, good)
        assert task.id in second.running
    assert len(tries) == count, "it is not tried each time"
    await world.pass_time(1)
    assert len(tries) == count + 1
    is_bad[0] = False
    await world.pass_time(2)
    assert len(first.running) == 1


async def test_settings_that_cannot_be_read_do_not_keep_others_from_writing(world: World) -> None:
    agent, good = await register(world), await register(world)
    process, other = await connect(world, agent, "i1"), await connect(world, good, "i2")

    def decide(found: Found, now: int) -> Changes[None]:
        row = found.get(rows.Agent, PROJECT, agent.id)
        assert row is not None
        after = rows.copy_of(row)
        after.configuration = '{"timeout": "x"}'
        return Changes(None, [after])

    world.submit(Operation(decide, keys=[Key(rows.Agent, (PROJECT, agent.id))]))
    await world.settle()
    await create(world, agent)
    task = await create(world, good)
    assert task.id in other.running and not process.running


async def test_tasks_of_a_type_that_nobody_ran_are_failed_no_further_once_somebody_does(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ao_server.engine.unhandled.FAILED_AT_ONCE", 1)
    agent = await register(world)
    await connect(world, agent, "i1", frozenset("b"))
    for _ in range(4):
        await create(world, agent, "a")
    world.look_for_unhandled()
    await world.settle()
    world.clock.time += LEASE
    process = Process(InstanceKey(PROJECT, agent.id, "i2"), frozenset("a"), limit=0)
    world.processes.append(process)
    failed: list[str] = []

    def come() -> None:
        failed.extend(event.type for event in world.events if event.type == "task_failed")
        if len(failed) == 1:
            world.connect(process)

    world.look_for_unhandled()
    await world.settle(come)
    assert sum(event.type == "task_failed" for event in world.events) < 4
    assert len(process.running) >= 1


async def test_an_agent_whose_process_was_lost_was_last_seen_when_it_was_last_heard_of(world: World) -> None:
    agent = await register(world)
    process = await connect(world, agent)
    await world.pass_time(5)
    heard_at = instance_of(world, process).heard_at
    assert heard_at == world.clock.now()
    world.die(process)
    await world.pass_time(20)
    found = await agents.get(world.reader, PROJECT, agent.id)
    assert found is not None and (found.status, found.last_seen_at) == ("inactive", heard_at)


async def test_a_task_that_was_lost_too_often_did_not_fail_by_itself(world: World) -> None:
    agent = await register(world)
    task = await create(world, agent)
    for number in range(MAX_DELIVERIES):
        process = await connect(world, agent, f"i{number}")
        assert task.id in process.running
        world.die(process)
        await world.pass_time(17)
    lost = await stored(world, task)
    assert (lost.status, lost.error_code, lost.failures) == ("failed", "lost", 0)


async def test_a_task_of_a_deleted_agent_is_not_said_to_be_there_for_another_try(world: World) -> None:
    agent = await register(world)
    task = await create(world, agent)
    world.submit(cancellation.cancel(PROJECT, task.id, lambda task: None))
    await world.settle()
    row = await stored(world, task)
    assert explain(row, [world.registry.taker(agent)]).remedies == [f"retry it: POST /v1/tasks/{task.id}/retry"]
    assert explain(row, []).remedies == ["its agent was deleted: submit a new task for another one"]

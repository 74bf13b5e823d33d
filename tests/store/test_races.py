"""What two things at once, in an unlucky order, must not do to each other."""

from typing import Any

from ao_server.engine import administration, cancellation, intake
from ao_server.engine.sessions import AgentKey, InstanceKey
from ao_server.store import rows
from ao_server.store.changes import Changes, Found, Key, Operation
from tests.store.fleet_world import PROJECT, Process, World


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
    looks: list[int] = []
    world.selections.meanwhile = lambda: looks.append(1)
    for number in range(5):
        await create(world, agent, "b")
        assert len(looks) == 0, number
    await create(world, agent, "a")
    assert len(process.running) == 1


async def test_nothing_is_remembered_of_a_deleted_agent(world: World) -> None:
    known: Any = world.dispatcher
    before = len(known._empty)
    for name in ("i1", "i2", "i3"):
        agent = await register(world, type_=f"type {name}")
        process = await connect(world, agent, name, frozenset("a") if name == "i1" else None)
        task = await create(world, agent)
        assert task.id in process.running
        assert known._claims and len(known._empty) > before
        world.delete(agent)
        await world.settle()
    assert not known._claims and len(known._empty) == before

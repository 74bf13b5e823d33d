"""Everything that can happen to agents, processes and tasks, at random, against the real engine and a real store.

After each step all has come to rest, and then what is promised must hold: above all, no task waits that a connected
process could take, and none runs twice. SOAK_ROUNDS makes the walks longer, SOAK_SEED chooses others.
"""

import asyncio
import os
import sqlite3
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest

from ao_server.engine import administration, cancellation, intake, placement, presence, projects, retries
from ao_server.engine.intake import TYPE_QUEUE
from ao_server.engine.reports import CancelledByAgent, Completed, HandedBack
from ao_server.engine.sessions import AgentKey, InstanceKey
from ao_server.engine.transitions import SUSPECT_DELIVERIES, Failure
from ao_server.store import rows
from ao_server.store.changes import Changes, Found, Operation
from tests.store.fleet_world import PROJECT, Process, World, open_world

ROUNDS = int(os.environ.get("SOAK_ROUNDS", "1"))
SEED = int(os.environ.get("SOAK_SEED", "1"))
STEPS = 250
WALKS = 6
TYPES = ("a", "b")
KINDS: tuple[frozenset[str] | None, ...] = (None, None, frozenset("a"), frozenset("b"), frozenset("ab"))
FINAL_EVENTS = ("task_completed", "task_failed", "task_cancelled")


@pytest.fixture(autouse=True)
def small_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits that a short walk comes to."""
    monkeypatch.setattr("ao_server.engine.dispatch.CLAIMED_AT_ONCE", 3)
    monkeypatch.setattr("ao_server.engine.dispatch.LOOKED_AT", 3)
    monkeypatch.setattr("ao_server.engine.queue_heads.LOOKED_AT", 3)
    monkeypatch.setattr("ao_server.engine.queue_heads.MOST_HELD", 30)
    monkeypatch.setattr("ao_server.engine.queue_heads.MOST_KINDS", 3)
    monkeypatch.setattr("ao_server.engine.presence.MAX_LOST_SESSIONS", 2)
    monkeypatch.setattr("ao_server.engine.clearing.AGAIN_SECONDS", 0.0)


class Walk:
    """A world, what may be done to it at random, and what must be true of it."""

    def __init__(self, world: World, path: Path, random: Random) -> None:
        self.world = world
        self.random = random
        self.history: deque[str] = deque(maxlen=60)
        self.overtaken: Counter[str] = Counter()
        # Whether something happened in the middle of a step.
        self.raced = False
        self._store = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        self._store.row_factory = sqlite3.Row
        self._processes = 0
        self._seen = 0
        self._outcomes: Counter[str] = Counter()
        self._claims: Counter[str] = Counter()

    async def run(self, steps: int) -> None:
        self.world.dispatcher.meanwhile = self.meanwhile
        await self.world.settle()
        for type_ in ("t", "t", "u"):
            self.world.submit(
                intake.create_agent(
                    intake.NewAgent(PROJECT, "name", type_, '{"max_concurrent_tasks": 3}'), self.world.ids
                )
            )
        await self.world.settle()
        for _ in range(steps):
            self.history.append("--")
            self.raced = False
            before = self.look()
            count = self.random.choice((1, 1, 1, 2, 4))
            done = [await self.act() for _ in range(count)]
            await self.world.settle(self.between)
            # What a failed transaction was to look at, the next one looks at: the server's alerts see to one a second.
            for _ in range(3):
                self.world.submit(Operation(lambda found, now: Changes(None)))
                await self.world.settle()
            after = self.look()
            self.check(after)
            # What holds from one moment to the next is lost where a step had several.
            if len(done) == 1 and done[0] != self.pass_time and not self.raced:
                self.nobody_has_too_much(before, after)
                self.the_urgent_go_first(before, after)

    # What happens.

    async def act(self) -> Callable[[], Any]:
        actions: dict[Callable[[], Any], int] = {
            self.create: 12,
            self.finish: 14,
            self.connect_new: 3,
            self.reconnect: 4,
            self.leave: 2,
            self.die: 2,
            self.goodbye: 1,
            self.trouble: 2,
            self.capacity: 3,
            self.cancel: 3,
            self.mode: 3,
            self.configure: 2,
            self.delete: 1,
            self.fail_a_transaction: 2,
            self.pass_time: 3,
        }
        action = self.random.choices(list(actions), list(actions.values()))[0]
        done = action()
        if asyncio.iscoroutine(done):
            await done
        return action

    def say(self, *what: Any) -> None:
        self.history.append(" ".join(str(each) for each in what))

    def register(self, type_: str, configuration: str) -> None:
        new = intake.NewAgent(PROJECT, "name", type_, configuration)
        self.world.submit(intake.create_agent(new, self.world.ids))

    def create(self) -> None:
        agent = self.random.choice(self.agents())
        by_type = self.random.random() < 0.4
        new = [
            intake.NewTask(
                PROJECT,
                None if by_type else agent.id,
                self.random.choice(TYPES),
                self.random.randrange(4),
                "{}",
                agent_type=agent.type if by_type else None,
                labels={"key": "value"} if self.random.random() < 0.1 else {},
                timeout=self.random.choice((None, None, 3_000_000)),
                retry=self.random.choice((None, retries.encode(retries.Policy(2, self.random.choice((0, 2_000_000)))))),
                delay=self.random.choice((None, None, None, 2_000_000)),
            )
            for _ in range(self.random.choice((1, 1, 2, 6)))
        ]
        turns = [self.random.choice((0, 1, 1)) for _ in new]
        self.say(
            "create",
            len(new),
            "for",
            agent.type if by_type else agent.id[-4:],
            [(each.type, each.priority, turn) for each, turn in zip(new, turns, strict=True)],
        )
        self.world.submit(in_turns(intake.create_tasks(new, self.world.ids), turns))

    def finish(self) -> None:
        working = [process for process in self.world.processes if process.running]
        for process in self.random.sample(working, min(len(working), self.random.choice((1, 1, 3)))):
            task_id = self.random.choice(list(process.running))
            if task_id in process.asked_to_stop:
                ending: Any = CancelledByAgent()
            else:
                ending = self.random.choice(
                    (
                        Completed("{}"),
                        Completed("{}"),
                        Failure("bad", "m"),
                        Failure("bad", "m", is_final=True),
                        HandedBack(),
                    )
                )
            self.say("finish", task_id[-6:], "on", process.key.instance_id, type(ending).__name__)
            self.world.end(process, task_id, ending)

    def connect_new(self) -> None:
        if len(self.world.processes) > 7:
            return
        self._processes += 1
        agent = self.random.choice(self.agents())
        key = InstanceKey(PROJECT, agent.id, f"i{self._processes}")
        process = Process(key, self.random.choice(KINDS), limit=0)
        self.say("connect", key.instance_id, "of", agent.id[-4:], process.types)
        self.world.processes.append(process)
        self.world.connect(process)

    def reconnect(self) -> None:
        for process in self.some(process for process in self.world.processes if not process.is_connecting):
            self.say("reconnect", process.key.instance_id, process.held)
            process.is_deaf = False
            self.world.connect(process)

    def leave(self) -> None:
        for process in self.some(process for process in self.world.processes if process.session is not None):
            self.say("leave", process.key.instance_id)
            self.world.leave(process)

    def die(self) -> None:
        for process in self.some(process for process in self.world.processes if not process.is_connecting):
            self.say("die", process.key.instance_id, process.held)
            self.world.die(process)

    def goodbye(self) -> None:
        for process in self.some(process for process in self.world.processes if process.session is not None):
            self.say("goodbye", process.key.instance_id)
            self.world.say_goodbye(process)

    def trouble(self) -> None:
        for process in self.some(process for process in self.world.processes if process.session is not None):
            process.is_deaf, process.is_mute = self.random.choice(((True, False), (False, False), (False, True)))
            self.say("trouble", process.key.instance_id, process.is_deaf, process.is_mute)

    def capacity(self) -> None:
        for process in self.some(process for process in self.world.processes if process.session is not None):
            process.capacity = self.random.randint(0, process.limit)
            self.say("capacity", process.key.instance_id, process.capacity)
            self.world.status(process)

    def cancel(self) -> None:
        for task in self.some(self.tasks("status IN ('pending', 'running')")):
            self.say("cancel", task.id[-6:])

            def stop(cancelled: rows.Task) -> None:
                if cancelled.status == "running":
                    self.world.fleet.stop_attempt(cancelled, "requested")

            self.world.submit(cancellation.cancel(PROJECT, task.id, stop))

    def mode(self) -> None:
        agent = self.random.choice(self.agents())
        mode = self.random.choice(("serving", "serving", "paused", "draining"))
        self.say("mode", agent.id[-4:], mode)
        key = AgentKey(PROJECT, agent.id)
        self.world.submit(administration.set_mode(key, mode, self.world.registry.is_present))

    def configure(self) -> None:
        agent = self.random.choice(self.agents())
        text = f'{{"max_concurrent_tasks": {self.random.randint(1, 5)}}}'
        self.say("configure", agent.id[-4:], text)
        update = administration.AgentUpdate(configuration=text)
        self.world.submit(administration.update(AgentKey(PROJECT, agent.id), update, self.world.fleet.configure))

    def delete(self) -> None:
        agent = self.random.choice(self.agents())
        self.say("delete", agent.id[-4:])
        self.world.delete(agent)
        self.world.submit(
            intake.create_agent(intake.NewAgent(PROJECT, "name", agent.type, agent.configuration), self.world.ids)
        )

    def fail_a_transaction(self) -> None:
        where = self.random.choice(("begin", "commit"))
        self.say("fail at", where)
        self.world.failures.append(where)

    async def pass_time(self) -> None:
        seconds = self.random.choice((1, 2, 6, 20))
        self.say("pass", seconds)
        await self.world.pass_time(seconds)

    def between(self) -> None:
        """Between a commit and the event loop's hearing of it."""
        if self.random.random() < 0.02:
            self.say("meanwhile")
            self.raced = True
            self.random.choice((self.leave, self.reconnect, self.die, self.capacity))()

    def meanwhile(self) -> None:
        """While the writer's thread makes a claim."""
        if self.random.random() < 0.01:
            self.say("within a claim")
            self.raced = True
            self.random.choice((self.leave, self.die))()

    def some(self, choices: Iterable[Any]) -> list[Any]:
        found = list(choices)
        return [self.random.choice(found)] if found else []

    # What is true.

    def agents(self) -> list[rows.Agent]:
        found = self._store.execute("SELECT * FROM agents WHERE deleted_at IS NULL ORDER BY id")
        return [rows.Agent(**dict(row)) for row in found]

    def tasks(self, where: str) -> list[rows.Task]:
        found = self._store.execute(f"SELECT * FROM tasks WHERE {where} ORDER BY priority, turn, id")
        return [rows.Task(**dict(row)) for row in found]

    def look(self) -> "Look":
        return Look(self)

    def check(self, after: "Look") -> None:
        self.events_are_told()
        self.memory_is_as_the_store(after)
        self.counters_are_right()
        self.nothing_waits_that_could_run(after)
        self.nothing_runs_twice()

    def events_are_told(self) -> None:
        events = self.world.events
        for event in events[self._seen :]:
            assert event.task_id is not None or not event.type.startswith("task_")
            if event.type in FINAL_EVENTS:
                self._outcomes[str(event.task_id)] += 1
                assert self._outcomes[str(event.task_id)] == 1, event
            if event.type == "task_started":
                self._claims[str(event.agent_id)] += 1
        self._seen = len(events)
        assert [event.position for event in events[-50:]] == list(range(self._seen, 0, -1))[:50][::-1]
        final = {task.id: task.status for task in self.tasks("completed_at IS NOT NULL")}
        assert self._outcomes.keys() == final.keys()
        for task_id, accepted in self.world.accepted.items():
            counted = [outcome.ending for outcome in accepted if isinstance(outcome.ending, Completed)]
            assert len(counted) <= 1 and (not counted or final[task_id] == "completed"), (task_id, accepted)

    def memory_is_as_the_store(self, after: "Look") -> None:
        held = {instance.key: instance.held for instance in self.world.registry if instance.held}
        assert held == {key: {task.id: task.attempt for task in tasks} for key, tasks in after.running.items()}
        for instance in self.world.registry:
            assert instance.deadlines.keys() == instance.held.keys(), instance
            suspects = {task.id for task in after.running.get(instance.key, []) if task.deliveries > SUSPECT_DELIVERIES}
            assert instance.alone == suspects, instance

    def counters_are_right(self) -> None:
        key = "agent_id, agent_type, type, priority, status"
        duration = "sum(CASE WHEN status = 'completed' THEN completed_at - started_at ELSE 0 END)"
        counted = self._store.execute(f"SELECT {key}, tasks, duration FROM task_counts WHERE tasks <> 0 ORDER BY {key}")
        real = self._store.execute(f"SELECT {key}, count(*), {duration} FROM tasks GROUP BY {key} ORDER BY {key}")
        assert [tuple(row) for row in counted] == [tuple(row) for row in real]

    def nothing_waits_that_could_run(self, after: "Look") -> None:
        for agent in after.agents.values():
            taker = after.takers[agent.id]
            if placement.of_agent(agent, taker.rooms, taker.elsewhere) is not None:
                continue
            queues = (agent.id, TYPE_QUEUE + agent.type)
            mine = [task for task in after.claimable if task.queue in queues]
            for types in {room.types for room in taker.rooms}:
                group = [room for room in taker.rooms if room.types == types]
                fitting = [task for task in mine if types is None or task.type in types]
                if any(task.deliveries >= SUSPECT_DELIVERIES for task in fitting):
                    # A process may be kept free for it.
                    continue
                assert list(placement.place(agent, fitting, group, taker.elsewhere)) == [], (
                    "a task waits that could run"
                )

    def nothing_runs_twice(self) -> None:
        running = Counter(task_id for process in self.world.processes for task_id in process.running)
        assert running.total() == len(running), [task_id for task_id, count in running.items() if count > 1]

    def nobody_has_too_much(self, before: "Look", after: "Look") -> None:
        for key, tasks in after.running.items():
            started = after.started(before, key)
            if started:
                most = max(before.limits.get(key, 0), after.limits.get(key, 0))
                assert len(tasks) <= most or key not in after.limits, f"{key.instance_id} has more than {most}"
            if any(task.deliveries > SUSPECT_DELIVERIES for task in tasks):
                assert len(tasks) == 1, f"something runs beside a suspect on {key.instance_id}"
            was, agent = before.agents.get(key.agent_id), after.agents.get(key.agent_id)
            if (
                was is not None
                and agent is not None
                and presence.is_broken(was)
                and presence.is_broken(agent)
                and started
            ):
                assert sum(len(each) for each_key, each in after.running.items() if each_key.agent == key.agent) == 1

    def the_urgent_go_first(self, before: "Look", after: "Look") -> None:
        waited = {(task.id, task.attempt) for task in before.claimable}
        left = [
            task
            for task in after.claimable
            if (task.id, task.attempt) in waited and task.deliveries < SUSPECT_DELIVERIES
        ]
        for key in after.running:
            agent, types = after.agents.get(key.agent_id), after.types.get(key)
            if agent is None or key not in after.types:
                continue
            queues = (agent.id, TYPE_QUEUE + agent.type)
            passed = [task for task in left if task.queue in queues and (types is None or task.type in types)]
            for task in after.started(before, key):
                self.overtaken[agent.id] += any(order_of(each) < order_of(task) for each in passed)
            assert self.overtaken[agent.id] <= self._claims[agent.id] // placement.OLDEST_EVERY + 1


class Look:
    """What stood in the store and in memory at one moment."""

    def __init__(self, walk: Walk) -> None:
        registry = walk.world.registry
        self.agents = {agent.id: agent for agent in walk.agents()}
        self.claimable = walk.tasks("status = 'pending' AND ready_at IS NULL")
        self.running: dict[InstanceKey, list[rows.Task]] = {}
        for task in walk.tasks("status = 'running'"):
            key = InstanceKey(PROJECT, task.agent_id, str(task.instance_id))
            self.running.setdefault(key, []).append(task)
        self.takers = {id_: registry.taker(agent) for id_, agent in self.agents.items()}
        sessions = {each.key: each.session for each in registry if each.session is not None}
        self.limits = {key: min(session.limit, session.capacity) for key, session in sessions.items()}
        self.types = {key: session.types for key, session in sessions.items()}

    def started(self, before: "Look", key: InstanceKey) -> list[rows.Task]:
        known = {(task.id, task.attempt) for task in before.running.get(key, [])}
        return [task for task in self.running[key] if (task.id, task.attempt) not in known]


def in_turns(create: Operation[Any], turns: Sequence[int]) -> Operation[Any]:
    """The write, with these turns for the tasks that it makes."""

    def decide(found: Found, now: int) -> Changes[Any]:
        changes = create.decide(found, now)
        made = [row for row in changes.rows if isinstance(row, rows.Task)]
        for task, turn in zip(made, turns, strict=True):
            task.turn = turn
        return changes

    return msgspec.structs.replace(create, decide=decide)


def order_of(task: rows.Task) -> tuple[int, int, str]:
    return task.priority, task.turn, task.id


@asynccontextmanager
async def walking(template: Path, folder: Path, seed: int) -> AsyncGenerator[Walk, None]:
    random = Random(seed)
    world = open_world(template, folder / "ao.db", random.random)
    clearing = asyncio.create_task(world.clearing.run(world.writer))
    try:
        world.submit(projects.found_default("a key that nobody has", world.ids))
        yield Walk(world, folder / "ao.db", random)
    finally:
        clearing.cancel()
        with suppress(asyncio.CancelledError):
            await clearing
        await world.database.close()


@pytest.mark.parametrize("number", range(WALKS))
async def test_whatever_happens_no_task_is_lost_doubled_or_left_waiting(
    number: int, template: Path, tmp_path: Path
) -> None:
    async with walking(template, tmp_path, SEED * 1_000 + number) as walk:
        try:
            await walk.run(STEPS * ROUNDS)
        except BaseException:
            print("\n".join(walk.history))
            raise


async def test_what_a_transaction_that_failed_was_to_look_at_the_next_one_looks_at(
    template: Path, tmp_path: Path
) -> None:
    async with walking(template, tmp_path, SEED) as walk:
        world = walk.world
        await world.settle()
        walk.register("t", "{}")
        await world.settle()
        (agent,) = walk.agents()
        world.submit(intake.create_task(intake.NewTask(PROJECT, agent.id, "a", 2, "{}"), world.ids))
        await world.settle()
        process = Process(InstanceKey(PROJECT, agent.id, "i1"), None, limit=0)
        world.processes.append(process)
        world.connect(process)
        # The hello is committed; what would claim for the process then is not.
        failing = iter(["commit"])
        await world.settle(lambda: world.failures.extend(failing))
        assert not process.running
        world.submit(Operation(lambda found, now: Changes(None)))
        await world.settle()
        assert len(process.running) == 1

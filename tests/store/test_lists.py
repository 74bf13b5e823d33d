"""Lists of tasks on both engines: after random histories each page and total is what a plain look at all tasks says."""

import asyncio
import json
import random
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ao_server.engine import counters, intake, projects, transitions
from ao_server.engine.ids import Ids
from ao_server.errors import Invalid
from ao_server.store import list_sql, lists, rows, schema, tables
from ao_server.store.changes import Changes, Found, Key, Operation
from ao_server.store.database import Database
from ao_server.store.driver import PLANNING
from ao_server.store.filters import DIMENSIONS, TaskFilter
from ao_server.store.id_times import first_at
from ao_server.store.list_sql import Part, Way
from ao_server.store.reader import Reader
from ao_server.store.totals import Totals
from ao_server.store.writer import Writer
from tests.store.test_schema import writing
from tests.store.test_writer import no_follow_ups

PROJECT = projects.DEFAULT
TYPES = ("clean", "load", "never")
EXECUTIONS = ("execution_1", "execution_2", None)
LABELS = (("env", "prod"), ("env", "test"), ("team", "red"))
START = 1_760_000_000_000_000
HOUR = 3_600_000_000


@dataclass
class World:
    """A store whose clock jumps, with what is asked of it checked against all its rows."""

    pick: random.Random
    writer: Writer
    reader: Reader
    totals: Totals
    ids: Ids
    agents: list[rows.Agent] = field(default_factory=list[Any])

    async def create(self) -> None:
        pick = self.pick
        agent = pick.choice(self.agents)
        of_type = not pick.randrange(4)
        new = intake.NewTask(
            PROJECT,
            None if of_type else agent.id,
            pick.choice(TYPES[:2]),
            pick.randrange(4),
            "{}",
            agent_type=agent.type if of_type else None,
            labels=dict(pick.sample(LABELS, pick.randrange(3))),
        )
        create = intake.create_task(new, self.ids)
        execution_id = pick.choice(EXECUTIONS)

        def decide(found: Found, now: int) -> Changes[rows.Task]:
            changes = create.decide(found, now)
            changes.answer.execution_id = execution_id
            return changes

        await self.writer.submit(msgspec.structs.replace(create, decide=decide))

    async def move(self, task: rows.Task) -> None:
        """Something that may happen to the task next."""
        happens = self.pick.randrange(3)
        agent_id = task.agent_id or next(agent.id for agent in self.agents if agent.type == task.agent_type)

        def decide(found: Found, now: int) -> Changes[Any]:
            current = found.get(rows.Task, PROJECT, task.id)
            assert current is not None
            if current.status == "pending":
                if happens == 0:
                    return transitions.cancel(current, transitions.STOPPED, now)
                return transitions.claim(current, agent_id, "instance", 1_000_000, now)
            if current.status != "running":
                return Changes(None)
            if happens == 0:
                return transitions.complete(current, json.dumps({"n": "x" * 17_000 if len(task.type) == 4 else 1}), now)
            if happens == 1:
                return transitions.fail(current, transitions.Failure("task_error", "broken"), now)
            return transitions.hand_back(current, now)

        await self.writer.submit(Operation(decide, keys=[Key(rows.Task, (PROJECT, task.id))]))

    async def all(self) -> Sequence[rows.Task]:
        """Every task, newest first."""
        async with self.reader.connect() as connection:
            found = await self.reader.rows(connection, rows.Task, rows.TABLES[rows.Task].c.project_id == PROJECT)
        return sorted(found, key=lambda task: task.id, reverse=True)

    def filter(self, there: Sequence[rows.Task]) -> TaskFilter:
        """At most three of the filters, with values that tasks have, or none has."""
        pick = self.pick
        times = sorted(pick.randrange(START - HOUR, max(task.created_at for task in there) + HOUR) for _ in range(2))
        every: dict[str, Any] = {
            "agent_id": pick.choice([*(agent.id for agent in self.agents), "agent_missing"]),
            "agent_type": pick.choice(["worker", "other", "missing"]),
            "type": pick.choice(TYPES),
            "priority": pick.randrange(4),
            "status": pick.choice(tables.TASK_STATUSES),
            "labels": pick.sample([*LABELS, ("env", None), ("team", None), ("missing", None)], pick.choice((1, 1, 2))),
            "id_from": first_at("task", times[0]),
            "id_before": first_at("task", times[1]),
            "execution_id": pick.choice((*EXECUTIONS[:2], "execution_missing")),
        }
        return TaskFilter(**{name: every[name] for name in pick.sample(list(every), pick.randrange(4))})

    async def check(self) -> None:
        """One random list."""
        there = await self.all()
        chosen = self.filter(there)
        matching = [task for task in there if _matches(task, chosen)]
        limit = self.pick.choice((1, 3, 20))
        if self.pick.randrange(4):
            page = self.pick.randrange(1, len(matching) // limit + 3)
            found = await lists.page(self.totals, PROJECT, chosen, page=page, limit=limit)
            expected = matching[(page - 1) * limit : page * limit]
        else:
            after = self.pick.choice(there).id
            found = await lists.page(self.totals, PROJECT, chosen, page=1, limit=limit, starting_after=after)
            expected = [task for task in matching if task.id < after][:limit]
        assert found.total == len(matching), chosen
        assert [each.task for each in found.rows] == expected, (chosen, limit)
        for each in found.rows:
            is_long = each.task.status == "completed" and each.task.type == "load"
            assert each.result_omitted == is_long
            assert (each.result is not None) == (each.task.status == "completed" and not is_long)


def _matches(task: rows.Task, chosen: TaskFilter) -> bool:
    own: dict[str, str] = json.loads(task.labels or "{}")
    return (
        all(getattr(task, name) == value for name, value in chosen.wanted.items())
        and chosen.execution_id in (None, task.execution_id)
        and (chosen.id_from is None or task.id >= chosen.id_from)
        and (chosen.id_before is None or task.id < chosen.id_before)
        and all(key in own and value in (None, own[key]) for key, value in chosen.labels)
    )


@asynccontextmanager
async def world(url: str, seed: int) -> AsyncGenerator[World, None]:
    pick = random.Random(seed)
    database = Database(url)
    connection = database.connect_writer()
    schema.prepare(connection, database.path)
    clock = START

    def now() -> int:
        nonlocal clock
        clock += pick.choice((0, 1_000, 700_000, HOUR // 3))
        return clock

    reader = Reader(database)
    totals = Totals(reader)
    writer = Writer(
        database,
        now,
        follow_ups=no_follow_ups,
        count=counters.of,
        observe=totals.observe,
        publish=lambda events: None,
        on_death=lambda error: None,
    )
    writer.start(connection)
    ids = Ids()
    await writer.submit(projects.found_default("a key that nobody has", ids))
    made = World(pick, writer, reader, totals, ids)
    for name, type_ in (("a", "worker"), ("b", "worker"), ("c", "other")):
        made.agents.append(await writer.submit(intake.create_agent(intake.NewAgent(PROJECT, name, type_), ids)))
    try:
        yield made
    finally:
        await writer.stop()
        await totals.stop()
        await database.close()


@pytest.mark.parametrize("patience", [0.0, 5.0])
@pytest.mark.parametrize("seed", range(2))
async def test_pages_and_totals_are_those_of_a_look_at_all_tasks(
    database_url: str, seed: int, patience: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Small enough that every way to a page is gone.
    monkeypatch.setattr("ao_server.store.lists.MAX_PASSED", 2)
    monkeypatch.setattr("ao_server.store.lists.SPARSE", 2)
    monkeypatch.setattr("ao_server.store.views.PERIODS", 16)
    monkeypatch.setattr("ao_server.store.totals.MAX_BACKLOG", 10)
    monkeypatch.setattr("ao_server.store.totals.PATIENCE_SECONDS", patience)
    async with world(database_url, seed) as store:
        for _ in range(6):
            await asyncio.gather(*(store.create() for _ in range(store.pick.randrange(1, 30))))
            there = await store.all()
            await asyncio.gather(*(store.move(store.pick.choice(there)) for _ in range(len(there) // 2)))
            for _ in range(25):
                await store.check()


async def test_totals_by_every_combination_are_kept_current_also_while_they_are_counted(database_url: str) -> None:
    async with world(database_url, 4) as store:
        chosen = TaskFilter(status="pending", type="clean")
        for _ in range(10):
            await store.create()
        asked = [store.totals.total(PROJECT, chosen) for _ in range(3)]
        await asyncio.gather(*asked, *(store.create() for _ in range(50)), store.totals.timed(PROJECT, chosen))
        for _ in range(3):
            there = await store.all()
            await asyncio.gather(*(store.create() for _ in range(20)), *(store.move(task) for task in there))
            there = await store.all()
            for wanted in ({}, *({name: getattr(there[3], name)} for name in DIMENSIONS), chosen.wanted):
                narrowed = TaskFilter(**wanted)
                expected = sum(_matches(task, narrowed) for task in there)
                assert await store.totals.total(PROJECT, narrowed) == expected
                spread = await store.totals.timed(PROJECT, narrowed)
                while spread is None:
                    spread = await store.totals.timed(PROJECT, narrowed)
                periods = {task.created_at // spread.width for task in there if _matches(task, narrowed)}
                assert spread.total() == expected
                assert sum(spread.total(period, period + 1) for period in periods) == expected


async def test_a_list_behind_a_task_that_does_not_exist_is_refused(database_url: str) -> None:
    async with world(database_url, 5) as store:
        await store.create()
        with pytest.raises(Invalid) as caught:
            await lists.page(store.totals, PROJECT, TaskFilter(), page=1, limit=20, starting_after="task_missing")
        assert caught.value.details[0].field == "starting_after"


MANY_TASKS = (
    """INSERT INTO tasks
    (project_id, id, agent_id, type, priority, created_at, status, attempt, deliveries, progress, log_lines, queue,
     agent_type, failures)
    SELECT %s, 'task_' || 10000 + n, 'agent_1', CASE n %% 20 WHEN 0 THEN 'clean' ELSE 'load' END, 2, n, 'pending', 0, 0,
     0, 0, 'agent_1', 't', 0 FROM generate_series(1, 5000) n""",
    """INSERT INTO task_labels SELECT %s, 'env', 'prod', 'task_' || 10000 + n FROM generate_series(1, 5000, 10) n""",
)


@pytest.mark.parametrize("way", [Way(columns=("type",)), Way(label=("env", "prod"))])
def test_postgresql_looks_along_the_index_that_was_chosen_and_gathers_nothing_before(
    way: Way, postgres_url: str
) -> None:
    database = Database(postgres_url)
    chosen = TaskFilter(type="clean", labels=[way.label or ("env", "prod")])
    sql, parameters = list_sql.page(PROJECT, chosen, way, Part(limit=20), 1_000)
    with writing(database) as connection:
        schema.prepare(connection, database.path)
        with connection.begin():
            for statement in MANY_TASKS:
                connection.exec_driver_sql(statement, (PROJECT,))
            connection.exec_driver_sql("ANALYZE tasks, task_labels")
            for setting in PLANNING:
                connection.exec_driver_sql(setting)
            explained = connection.exec_driver_sql(f"EXPLAIN {database.text(sql)}", tuple(parameters))
            plan = [str(step) for step in explained.scalars()]
    begins = next(step for step in plan if "Scan" in step)
    assert ("tasks_by_type" if way.columns else "task_labels") in begins, plan
    assert not any("hashed" in step for step in plan), plan


@pytest.mark.parametrize("more", [{}, {"type": "clean"}, {"status": "failed", "labels": [("env", "prod")]}])
def test_sqlite_looks_for_tasks_of_an_execution_among_those_alone(more: dict[str, Any], tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'ao.db'}")
    chosen = TaskFilter(execution_id="execution_1", **more)
    part = Part("task_1", "task_2", limit=20)
    with writing(database) as connection:
        schema.prepare(connection, database.path)
        page = list_sql.page(PROJECT, chosen, Way(), part, 1_000)
        for sql, parameters in (page, list_sql.counts(PROJECT, chosen, Way(), [part])):
            explained = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {database.text(sql)}", tuple(parameters))
            plan = [str(step[3]) for step in explained]
            found = next(step for step in plan if step.startswith("SEARCH t "))
            assert "tasks_by_execution (project_id=? AND execution_id=? AND id>? AND id<?)" in found, plan
            assert not any("TEMP B-TREE" in step for step in plan), plan


def test_sqlite_looks_for_periods_along_the_index_of_the_filter(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/ao.db")
    part = Part(limit=20, ranges=[("task_1", "task_2"), ("task_5", "task_6")])
    chosen = TaskFilter(agent_id="agent_1", status="failed")
    sql, parameters = list_sql.page(PROJECT, chosen, Way(columns=("agent_id",)), part, 1_000)
    with writing(database) as connection:
        schema.prepare(connection, database.path)
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {database.text(sql)}", tuple(parameters)).all()
    assert any("tasks_by_agent (project_id=? AND agent_id=? AND id>? AND id<?)" in str(step) for step in plan), plan

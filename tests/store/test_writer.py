"""The writer on both engines: what it answers is durable, what fails fails alone, events have no gap."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest
from sqlalchemy.exc import OperationalError

from ao_server.engine import attach, counters, intake, projects
from ao_server.engine.clock import SystemClock
from ao_server.engine.ids import Ids
from ao_server.errors import DeadlineExceeded, Invalid, Unavailable
from ao_server.store import agents, events, lists, rows, schema, tasks
from ao_server.store.agents import AgentFilter
from ao_server.store.batch import Batch
from ao_server.store.changes import Change, Changes, Found, Key, Operation
from ao_server.store.database import Database
from ao_server.store.filters import TaskFilter
from ao_server.store.reader import Reader
from ao_server.store.totals import Totals
from ao_server.store.writer import Writer

PROJECT = projects.DEFAULT


@dataclass
class Store:
    writer: Writer
    reader: Reader
    ids: Ids
    published: list[rows.Event]
    observed: list[Change]
    deaths: list[BaseException]

    async def agent(self) -> rows.Agent:
        return await self.writer.submit(intake.create_agent(intake.NewAgent(PROJECT, "name", "type"), self.ids))

    async def task(self, agent: rows.Agent, payload: str = "{}") -> rows.Task:
        new = intake.NewTask(PROJECT, agent.id, "work", 2, payload)
        return await self.writer.submit(intake.create_task(new, self.ids))


def no_follow_ups(batch: Batch) -> Generator[Sequence[Operation[Any]], None, None]:
    yield from ()


@asynccontextmanager
async def opened(url: str) -> AsyncGenerator[Store, None]:
    database = Database(url)
    connection = database.connect_writer()
    schema.prepare(connection, database.path)
    published: list[rows.Event] = []
    observed: list[Change] = []
    deaths: list[BaseException] = []
    writer = Writer(
        database,
        SystemClock().now,
        follow_ups=no_follow_ups,
        count=counters.of,
        observe=observed.extend,
        publish=published.extend,
        on_death=deaths.append,
    )
    writer.start(connection)
    ids = Ids()
    await writer.submit(projects.found_default("a key that nobody has", ids))
    try:
        yield Store(writer, Reader(database), ids, published, observed, deaths)
    finally:
        await writer.stop()
        await database.close()


async def test_every_answered_create_is_there_after_reopening_with_exact_totals_and_gapless_events(
    database_url: str,
) -> None:
    async with opened(database_url) as store:
        agent = await store.agent()
        made = await asyncio.gather(*(store.task(agent, f'{{"n":{number}}}') for number in range(300)))
        assert [event.position for event in store.published] == list(range(1, 302))
    database = Database(database_url)
    reader = Reader(database)
    try:
        page = await lists.page(Totals(reader), PROJECT, TaskFilter(agent_id=agent.id), page=3, limit=100)
        assert page.total == 300
        assert [listed.task.id for listed in page.rows] == sorted((task.id for task in made), reverse=True)[200:]
        kept = await events.after(reader, PROJECT, 0, 1_000)
        assert [event.position for event in kept] == list(range(1, 302))
        assert {event.task_id for event in kept[1:]} == {task.id for task in made}
        detail = await tasks.detail(reader, PROJECT, made[7].id)
        assert detail is not None and detail.payload == '{"n":7}'
    finally:
        await database.close()


async def test_what_is_delivered_goes_before_the_events_and_the_answer(database_url: str) -> None:
    async with opened(database_url) as store:
        order: list[str] = []
        operation = Operation(
            lambda found, now: Changes(None, events=[told(1, 1)]),
            delivered=lambda answer: order.append(f"delivered, {len(store.published)} published"),
        )
        await store.writer.submit(operation)
        order.append(f"answered, {len(store.published)} published")
    assert order == ["delivered, 0 published", "answered, 1 published"]


def told(number: int, size: int) -> rows.Event:
    body = f'{{"n":"é\\u0000{"x" * size}"}}'
    task_id = None if number % 3 else f"task_{number}"
    return rows.Event(project_id=PROJECT, position=0, type="t", timestamp=number, body=body, task_id=task_id)


async def test_one_resumes_at_any_event_whatever_it_was_written_with(database_url: str) -> None:
    sizes = [[10] * 3, [5] * 200, [0], [40_000, 30_000, 1, 70_000, 1], [1] * 64, [1] * 65]
    async with opened(database_url) as store:
        for some in sizes:
            new = [told(number, size) for number, size in enumerate(some)]
            await store.writer.submit(Operation(lambda found, now, new=new: Changes(None, events=new)))
        count = sum(map(len, sizes))
        assert [event.position for event in store.published] == list(range(1, count + 1))
        async with store.reader.connect() as connection:
            stored = await store.reader.rows(connection, rows.EventPortion)
        # Of 200: 64, 64, 64, 8; of the large ones each stands alone that finds no room.
        lasts = [3, 67, 131, 195, 203, 204, 205, 207, 208, 209, 273, 337, 338]
        assert sorted(portion.last for portion in stored) == lasts
        for limit in (3, 100):
            for position in range(count + 1):
                found = await events.after(store.reader, PROJECT, position, limit)
                assert found == store.published[position : position + limit]


async def test_postgresql_compresses_events_the_cheaper_way_if_it_can(postgres_url: str) -> None:
    async with opened(postgres_url) as store:
        many = Changes(None, events=[told(number, 1_000) for number in range(20)])
        await store.writer.submit(Operation(lambda found, now: many))
        with store.reader.database.writing.connect() as connection:
            can = connection.exec_driver_sql(
                "SELECT 'lz4' = ANY(enumvals) FROM pg_settings WHERE name = 'default_toast_compression'"
            ).scalar()
            kept = connection.exec_driver_sql("SELECT pg_column_compression(events) FROM event_portions").scalars()
            assert set(kept) == {"lz4" if can else "pglz"}


async def test_a_refused_write_and_a_broken_one_fail_alone_in_a_shared_batch(database_url: str) -> None:
    async with opened(database_url) as store:
        agent = await store.agent()
        odd = rows.copy_of(agent)
        odd.status = "not a status"

        def break_a_rule_of_the_database(found: Found, now: int) -> Changes[None]:
            return Changes(None, rows=[odd])

        missing = intake.NewTask(PROJECT, "agent_missing", "work", 2, "{}")
        results = await asyncio.gather(
            *(store.task(agent) for _ in range(20)),
            store.writer.submit(Operation(break_a_rule_of_the_database, keys=[Key(rows.Agent, (PROJECT, agent.id))])),
            store.writer.submit(intake.create_task(missing, store.ids)),
            *(store.task(agent) for _ in range(20)),
            return_exceptions=True,
        )
        good = [each for each in results if isinstance(each, rows.Task)]  # pyright: ignore[reportArgumentType] - a struct
        assert len(good) == 40
        assert "status_known" in str(results[20])
        assert isinstance(results[21], Invalid) and results[21].details[0].field == "agent_id"
        assert await Totals(store.reader).total(PROJECT, TaskFilter()) == 40
        assert [event.position for event in store.published] == list(range(1, 42))


async def test_a_decision_sees_what_the_ones_before_it_in_the_batch_changed(database_url: str) -> None:
    async with opened(database_url) as store:
        new = intake.NewAgent(PROJECT, "twin", "type")
        found = await asyncio.gather(*(store.writer.submit(attach.register(new, store.ids)) for _ in range(20)))
        assert len(set(found)) == 1
        page = await agents.page(store.reader, PROJECT, AgentFilter(), page=1, limit=100)
        assert page.total == 1


async def test_stop_commits_what_was_accepted(database_url: str) -> None:
    async with opened(database_url) as store:
        agent = await store.agent()
        creates = [asyncio.create_task(store.task(agent)) for _ in range(50)]
        await asyncio.sleep(0)
        await store.writer.stop()
        assert len({task.id for task in await asyncio.gather(*creates)}) == 50
        with pytest.raises(Unavailable):
            await store.task(agent)


async def test_a_full_queue_and_a_passed_deadline_are_said_so(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(database_url) as store:
        monkeypatch.setattr("ao_server.store.writer.MAX_WAITING", 0)
        with pytest.raises(Unavailable):
            await store.agent()
        monkeypatch.undo()
        nothing: Operation[None] = Operation(lambda found, now: Changes(None))
        monkeypatch.setattr("ao_server.store.writer.TIMEOUT_SECONDS", 0.0)
        with pytest.raises(DeadlineExceeded):
            await store.writer.submit(nothing)
        monkeypatch.undo()
        await store.agent()


async def test_while_another_process_holds_the_write_lock_writes_are_unavailable_and_then_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ao_server.store.database.LOCK_WAIT_SECONDS", 0.2)
    async with opened(f"sqlite:///{tmp_path / 'ao.db'}") as store:
        agent = await store.agent()
        outsider = sqlite3.connect(tmp_path / "ao.db", isolation_level=None)
        try:
            outsider.execute("BEGIN IMMEDIATE")
            with pytest.raises(Unavailable):
                await store.task(agent)
            assert not store.writer.is_healthy
            outsider.execute("ROLLBACK")
        finally:
            outsider.close()
        await store.task(agent)
        assert store.writer.is_healthy
        assert [event.position for event in store.published] == [1, 2]
        assert store.deaths == []


class Cut:
    """Cuts the writer's connection at its next commit: behind it (`came_through`) or in front of it."""

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch, *, came_through: bool) -> None:
        self._database = store.reader.database
        self._came_through = came_through
        self.has_cut = threading.Event()
        # Whether nobody can connect.
        self.is_away = False
        dialect: Any = self._database.dialect
        self._commit, self._connect = dialect.do_commit, self._database.connect_writer
        monkeypatch.setattr(dialect, "do_commit", self._cut)
        monkeypatch.setattr(self._database, "connect_writer", self._reconnect)

    def _cut(self, connection: Any) -> None:
        if self.has_cut.is_set():
            self._commit(connection)
            return
        self.has_cut.set()
        if self._came_through:
            self._commit(connection)
        if self._database.is_sqlite:
            raise sqlite3.OperationalError("disk I/O error")
        connection.driver_connection.close()
        raise psycopg.OperationalError("server closed the connection unexpectedly")

    def _reconnect(self) -> Any:
        if self.is_away:
            raise OperationalError("connect", {}, psycopg.OperationalError("connection refused"))
        return self._connect()


async def test_a_commit_that_came_through_although_its_connection_broke_is_answered_and_not_made_twice(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(database_url) as store:
        agent = await store.agent()
        Cut(store, monkeypatch, came_through=True)
        made = await asyncio.gather(*(store.task(agent) for _ in range(10)))
        after = await store.task(agent)
        page = await lists.page(Totals(store.reader), PROJECT, TaskFilter(), page=1, limit=100)
        assert {listed.task.id for listed in page.rows} == {after.id, *(task.id for task in made)}
        assert page.total == 11
        assert [event.position for event in store.published] == list(range(1, 13))
        assert len([after for _, after in store.observed if type(after) is rows.Task]) == 11
        assert store.deaths == []


async def test_a_commit_that_did_not_come_through_with_its_connection_has_failed(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(database_url) as store:
        agent = await store.agent()
        Cut(store, monkeypatch, came_through=False)
        with pytest.raises(Unavailable):
            await store.task(agent)
        await store.task(agent)
        page = await lists.page(Totals(store.reader), PROJECT, TaskFilter(), page=1, limit=100)
        assert page.total == 1
        assert [event.position for event in store.published] == [1, 2]


async def test_a_commit_stays_in_doubt_until_the_database_is_back(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ao_server.store.writer.DOUBT_SECONDS", 0.05)
    async with opened(postgres_url) as store:
        agent = await store.agent()
        cut = Cut(store, monkeypatch, came_through=True)
        cut.is_away = True
        made = asyncio.create_task(store.task(agent))
        await asyncio.sleep(0)
        await asyncio.to_thread(cut.has_cut.wait, 10)
        with pytest.raises(Unavailable):
            await store.task(agent)
        assert not made.done() and not store.writer.is_healthy
        cut.is_away = False
        task = await made
        assert (await tasks.get(store.reader, PROJECT, task.id)) is not None
        assert [event.position for event in store.published] == [1, 2]


def _raise(*_: Any) -> None:
    raise RuntimeError("a bug")


@pytest.mark.parametrize("where", ["committed", "observe", "delivered", "publish"])
async def test_what_raises_behind_a_commit_ends_the_writer_and_nothing_is_written_twice(
    where: str, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(database_url) as store:
        agent = await store.agent()
        creates: list[Operation[Any]] = [
            intake.create_task(intake.NewTask(PROJECT, agent.id, "work", 2, "{}"), store.ids) for _ in range(5)
        ]
        if where in ("committed", "delivered"):
            creates[2] = msgspec.structs.replace(creates[2], **{where: _raise})
        else:
            monkeypatch.setattr(store.writer, f"_{where}", _raise)
        results = await asyncio.gather(*map(store.writer.submit, creates), return_exceptions=True)
        assert all(isinstance(each, Unavailable) for each in results), results
        await asyncio.to_thread(vars(store.writer)["_thread"].join, 10)
        await asyncio.sleep(0)
        assert [str(death) for death in store.deaths] == ["a bug"]
        with pytest.raises(Unavailable):
            await store.agent()
        page = await lists.page(Totals(store.reader), PROJECT, TaskFilter(), page=1, limit=100)
        assert page.total == len(page.rows) == 5

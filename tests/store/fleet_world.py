"""The real engine on a real SQLite file in one thread: a clock, a writer and processes that tests move by hand.

A step of the writer is one whole transaction with its claims; what it has to say to the event loop is heard only when
the loop runs on. So everything that two threads can do to each other can be done here in a chosen order.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from ao_server.engine import administration, counters, projects, reports
from ao_server.engine.clearing import Clearing
from ao_server.engine.dispatch import Dispatcher
from ao_server.engine.fleet import Fleet
from ao_server.engine.ids import Ids
from ao_server.engine.queue_heads import QueueHeads
from ao_server.engine.registry import Registry
from ao_server.engine.releases import Releases
from ao_server.engine.sessions import (
    AgentKey,
    Assign,
    Attempt,
    Configure,
    InstanceKey,
    Renewed,
    Session,
    Settled,
    Stop,
    TaskType,
)
from ao_server.engine.transitions import Failure
from ao_server.engine.unhandled import Unhandled
from ao_server.engine.workflows.due import DueSteps
from ao_server.engine.workflows.graphs import Graphs
from ao_server.engine.workflows.lists import Lists
from ao_server.engine.workflows.planning import Planning
from ao_server.engine.workflows.postponed import PostponedExecutions
from ao_server.engine.workflows.room import Room
from ao_server.engine.workflows.turns import Tools
from ao_server.errors import Problem
from ao_server.store import rows
from ao_server.store.changes import Change, Operation, ValueSelection
from ao_server.store.database import Database
from ao_server.store.reader import Reader
from ao_server.store.selections import TaskSelections
from ao_server.store.transactions import in_turn
from ao_server.store.workflow_selections import WorkflowSelections
from ao_server.store.writer import Writer

PROJECT = projects.DEFAULT
LEASE = 15.0
STATUS_SECONDS = 5
TURNS = 6


class FakeClock:
    """Moves only when told to."""

    def __init__(self) -> None:
        self.time = 1_000_000.0
        # By how much somebody has set the wall clock forward.
        self.jump = 0.0

    def monotonic(self) -> float:
        return self.time

    def now(self) -> int:
        return round((self.time + self.jump) * 1e6)


class SteppedWriter(Writer):
    """The writer without its thread: `step` runs one transaction, here and now."""

    def start(self, connection: Connection) -> None:
        self._transactions.use(connection)

    @property
    def has_work(self) -> bool:
        return bool(self._waiting) or self._in_doubt is not None

    def step(self) -> None:
        self._write(self._next() or [])


class RacedDispatcher(Dispatcher):
    """Lets something happen in the event loop while a claim is in the making."""

    meanwhile: Callable[[], None] = staticmethod(lambda: None)

    def forget_heads(self) -> None:
        """As after a restart."""
        self._heads = QueueHeads()

    def _claim(self, *arguments: Any, **named: Any) -> Operation[Any]:
        self.meanwhile()
        return super()._claim(*arguments, **named)


class CountedSelections(TaskSelections):
    """Counts how often dispatch looks into a queue in the store."""

    looks: int = 0

    def head(self, *arguments: Any, **named: Any) -> ValueSelection:
        self.looks += 1
        return super().head(*arguments, **named)


@dataclass(eq=False)
class Process:
    """A process of an agent, as its machine sees it."""

    key: InstanceKey
    types: frozenset[str] | None
    limit: int
    session: Session | None = None
    # It does not read its stream, or nothing goes through in either direction.
    is_deaf: bool = False
    is_mute: bool = False
    is_connecting: bool = False
    capacity: int = 0
    last_assign: int = 0
    status_number: int = 0
    renewed_at: float = 0.0
    status_sent: dict[int, float] = field(default_factory=dict[int, float])
    # Task id to attempt: running, and ended but not settled.
    running: dict[str, int] = field(default_factory=dict[str, int])
    ended: dict[str, reports.Outcome] = field(default_factory=dict[str, reports.Outcome])
    asked_to_stop: set[str] = field(default_factory=set[str])
    stops_at: dict[str, float] = field(default_factory=dict[str, float])

    @property
    def held(self) -> dict[str, int]:
        return {**self.running, **{task_id: outcome.attempt.number for task_id, outcome in self.ended.items()}}

    def forget(self, task_id: str) -> None:
        self.running.pop(task_id, None)
        self.asked_to_stop.discard(task_id)
        self.stops_at.pop(task_id, None)


class World:
    """A server and its processes."""

    def __init__(self, database: Database, random: Callable[[], float]) -> None:
        self.clock = FakeClock()
        self.random = random
        self.ids = Ids(lambda bits: int(random() * 2**bits))
        self.database = database
        self.selections = CountedSelections(database)
        self.reader = Reader(database)
        self.registry = Registry(self.clock, LEASE)
        self.dispatcher = RacedDispatcher(self.registry, self.selections, self.clock.monotonic)
        self.releases = Releases(self.reader, self.selections, self.clock)
        self.clearing = Clearing(self.selections)
        self.unhandled = Unhandled(self.reader, self.registry, self.selections, self.clock)
        self.graphs = Graphs()
        self.workflow_selections = WorkflowSelections(database)
        self.due_steps = DueSteps(self.reader, self.workflow_selections, self.clock)
        self.postponed = PostponedExecutions(self.workflow_selections)
        self.lists = Lists()
        self.planning = Planning(Tools(self.graphs, self.lists, Room(), self.workflow_selections, self.ids, self._stop))
        self.events: list[rows.Event] = []
        self.deaths: list[BaseException] = []
        self.writer = SteppedWriter(
            database,
            self.clock.now,
            follow_ups=in_turn(self.planning.follow_ups, self.dispatcher.claims),
            count=counters.of,
            observe=self._observe,
            publish=self.events.extend,
            on_death=self.deaths.append,
        )
        self.fleet = Fleet(self.writer, self.registry, self.dispatcher, self.selections, self.clock, self.ids, random)
        self.processes: list[Process] = []
        # What was settled as counted, by task.
        self.accepted: dict[str, list[reports.Outcome]] = {}
        self.errors: list[BaseException] = []
        # Where the next transactions are to fail: at "begin" or "commit".
        self.failures: list[str] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self._are_postponed = False
        self.holds_postponed = False
        # What else is to hear of commits.
        self.watchers: list[Callable[[list[Change]], None]] = []
        dialect: Any = database.dialect
        self._begin, self._commit = database.begin, dialect.do_commit
        vars(database)["begin"] = self._begin_or_fail
        dialect.do_commit = self._commit_or_fail

    # What happens.

    def do(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Begins something that a client or the server does; a Problem is its own affair."""

        async def guarded() -> Any:
            try:
                return await work
            except Problem:
                return None
            except Exception as error:
                self.errors.append(error)
                raise

        task = asyncio.get_running_loop().create_task(guarded())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def submit(self, operation: Operation[Any]) -> asyncio.Task[Any]:
        """A write of a client."""
        return self.do(self.writer.submit(operation))

    async def settle(self, between: Callable[[], None] = lambda: None) -> None:
        """Until nothing moves any more. `between` is called after each commit, before the event loop hears of it."""
        for _ in range(5_000):
            await self.turn()
            if self.writer.has_work:
                self.writer.step()
                between()
            elif self._are_postponed and not self.holds_postponed:
                self._are_postponed = False
                self.do(self.postponed.carry_on(self.writer))
            elif not self._tasks and not any([self._read(process) for process in self.processes]):
                assert not self.errors and not self.deaths, [*self.errors, *self.deaths]
                return
            elif self._tasks:
                # Reads go through threads of their own.
                await asyncio.sleep(0.0002)
        raise AssertionError("it never comes to rest")

    async def turn(self) -> None:
        """Lets the event loop run what is ready."""
        for _ in range(TURNS):
            await asyncio.sleep(0)

    def delete(self, agent: rows.Agent) -> None:
        """Deletes an agent."""
        key = AgentKey(agent.project_id, agent.id)

        def gone(deleted: rows.Agent) -> None:
            self.fleet.dismiss(deleted)
            self.clearing.add(key)

        self.submit(administration.delete(key, agent.registered_as, agent.type, gone))

    def look_for_unhandled(self) -> None:
        self.do(self.unhandled.look(self.writer))

    async def pass_time(self, seconds: int) -> None:
        """A second at a time, processes do what they do by the clock, then the server."""
        for _ in range(seconds):
            self.clock.time += 1.0
            for process in self.processes:
                self._tick(process)
            await self.settle()
            self.do(self.fleet.sweep_once())
            self.submit(self.releases.release())
            self.submit(self.due_steps.end())
            self.look_for_unhandled()
            await self.settle()

    # What processes do.

    def connect(self, process: Process) -> None:
        """Says hello, with what it holds."""
        self.leave(process)
        process.is_connecting, process.is_mute = True, False
        self.do(self._hello(process))

    def leave(self, process: Process) -> None:
        """Its stream ends."""
        if process.session is not None:
            self.fleet.leave(process.session)
        process.session = None

    def die(self, process: Process) -> None:
        """The process is killed."""
        self.leave(process)
        self.processes.remove(process)

    def say_goodbye(self, process: Process) -> None:
        """It hands everything back and goes."""
        if process.session is not None:
            self.processes.remove(process)
            self.do(self.fleet.goodbye(process.session))

    def status(self, process: Process) -> None:
        """Says what it holds."""
        session = process.session
        if session is None or process.is_mute:
            return
        process.status_number += 1
        process.status_sent[process.status_number] = self.clock.monotonic()
        held, number = process.held, process.status_number
        self.do(self._told(session, self.fleet.status(session, number, held, process.last_assign, process.capacity)))

    def end(self, process: Process, task_id: str, ending: Any) -> None:
        """An attempt ends, and is reported if that is possible."""
        attempt = Attempt(task_id, process.running[task_id])
        process.forget(task_id)
        process.ended[task_id] = reports.Outcome(attempt, ending)
        self._report(process, [process.ended[task_id]])

    def _stop(self, task: rows.Task) -> None:
        self.fleet.stop_attempt(task, "requested")

    # How.

    async def _hello(self, process: Process) -> None:
        types = [TaskType("*")] if process.types is None else [TaskType(name) for name in sorted(process.types)]
        sent = self.clock.monotonic()
        try:
            session, attached = await self.fleet.hello(process.key, types, process.held)
        finally:
            process.is_connecting = False
        process.renewed_at = sent
        process.session = session
        process.limit = process.capacity = session.capacity
        process.last_assign = 0
        for attempt in attached.superseded:
            self._drop(process, attempt)
        self.fleet.open(session)
        self._report(process, list(process.ended.values()))

    def _report(self, process: Process, outcomes: list[reports.Outcome]) -> None:
        session = process.session
        if session is not None and not process.is_mute and outcomes:
            settle = reports.settle(process.key, outcomes, self.random, lambda settled: session.push(Settled(settled)))
            self.do(self._told(session, self.writer.submit(settle)))

    async def _told(self, session: Session, work: Coroutine[Any, Any, Any]) -> None:
        try:
            await work
        except Problem as problem:
            session.end(problem)

    def _read(self, process: Process) -> bool:
        """Whether it read anything."""
        session = process.session
        if session is None or process.is_deaf or process.is_mute or not session.outbox:
            return False
        message = session.outbox.take()
        match message:
            case Assign(number, assignments):
                process.last_assign = number
                for assignment in assignments:
                    process.running[assignment.attempt.task_id] = assignment.attempt.number
                    process.stops_at[assignment.attempt.task_id] = self.clock.monotonic() + assignment.timeout
            case Stop(attempts, "requested"):
                process.asked_to_stop |= {attempt.task_id for attempt in attempts if attempt.task_id in process.running}
            case Stop(attempts):
                for attempt in attempts:
                    self._drop(process, attempt)
            case Settled(settlements):
                for attempt, counted in settlements:
                    outcome = process.ended.get(attempt.task_id)
                    if outcome is not None and outcome.attempt == attempt:
                        del process.ended[attempt.task_id]
                        if counted:
                            self.accepted.setdefault(attempt.task_id, []).append(outcome)
            case Configure():
                process.limit = process.capacity = message.max_concurrent_tasks
            case Renewed(number):
                process.renewed_at = process.status_sent.pop(number)
            case Exception():
                self.leave(process)
            case _:
                raise AssertionError(message)
        return True

    def _drop(self, process: Process, attempt: Attempt) -> None:
        if process.running.get(attempt.task_id) == attempt.number:
            process.forget(attempt.task_id)
        outcome = process.ended.get(attempt.task_id)
        if outcome is not None and outcome.attempt == attempt:
            del process.ended[attempt.task_id]

    def _tick(self, process: Process) -> None:
        now = self.clock.monotonic()
        if now - process.renewed_at >= LEASE - 1:
            # By its own clock its lease is over: nothing of what it does counts any more.
            for task_id in list(process.running):
                process.forget(task_id)
            process.ended.clear()
        for task_id, time in list(process.stops_at.items()):
            if time <= now:
                self.end(process, task_id, Failure("timeout", "it took too long"))
        if round(now) % STATUS_SECONDS == 0:
            self.status(process)

    def _observe(self, changes: list[Change]) -> None:
        self.registry.observe(changes)
        self.releases.observe(changes)
        self.due_steps.observe(changes)
        self.planning.observe(changes)
        self.dispatcher.observe(changes)
        for watch in self.watchers:
            watch(changes)
        self._are_postponed |= any(type(after) is rows.Execution and bool(after.postponed) for _, after in changes)

    def _begin_or_fail(self, cursor: Any) -> None:
        self._fail("begin")
        self._begin(cursor)

    def _commit_or_fail(self, connection: Any) -> None:
        self._fail("commit")
        self._commit(connection)

    def _fail(self, where: str) -> None:
        if where in self.failures:
            self.failures.remove(where)
            raise sqlite3.OperationalError("disk I/O error")


def open_world(template: Path, path: Path, random: Callable[[], float]) -> World:
    """A world on a copy of an empty store."""
    path.write_bytes(template.read_bytes())
    database = Database(f"sqlite:///{path}")
    connection = database.connect_writer()
    # Nothing is cut off from power here.
    driver: Any = connection.connection.driver_connection
    driver.execute("PRAGMA synchronous=OFF")
    world = World(database, random)
    world.writer.start(connection)
    return world

"""The only wiring: opens the store, builds the engine and the services, runs until told to stop."""

import asyncio
import random
import signal
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import structlog
from sqlalchemy import Connection
from sqlalchemy.exc import ArgumentError, DatabaseError

from agent_orchestration.rate_limits import in_memory_or_shared
from agent_orchestration.v1 import (
    access_pb2_grpc,
    agents_pb2_grpc,
    audit_pb2_grpc,
    executions_pb2_grpc,
    keys_pb2_grpc,
    monitoring_pb2_grpc,
    oauth_pb2_grpc,
    projects_pb2_grpc,
    relay_pb2_grpc,
    runners_pb2_grpc,
    tasks_pb2_grpc,
    workflows_pb2_grpc,
)
from ao_server import folder, keys
from ao_server.api.access import AccessServicer
from ao_server.api.agents import AgentServicer
from ao_server.api.audit import AuditServicer
from ao_server.api.execution_details import ExecutionDetails
from ao_server.api.executions import ExecutionServicer
from ao_server.api.keys import KeyServicer
from ao_server.api.methods import Methods
from ao_server.api.monitoring import MonitoringServicer
from ao_server.api.oauth_clients import OAuthClientServicer
from ao_server.api.projects import ProjectServicer
from ao_server.api.recording import Recorder
from ao_server.api.relay import RelayServicer
from ao_server.api.runners import RunnerServicer
from ao_server.api.standard_services import StandardServices
from ao_server.api.tasks import TaskServicer
from ao_server.api.workflows import WorkflowServicer
from ao_server.engine import counters, projects
from ao_server.engine.access import Access
from ao_server.engine.alerts import Alerts
from ao_server.engine.clearing import Clearing
from ao_server.engine.clock import SystemClock
from ao_server.engine.dispatch import Dispatcher
from ao_server.engine.feed import Feed
from ao_server.engine.fleet import Fleet
from ao_server.engine.ids import Ids
from ao_server.engine.pruning import Pruning
from ao_server.engine.registry import Registry
from ao_server.engine.releases import Releases
from ao_server.engine.secrets import sha256
from ao_server.engine.unhandled import Unhandled
from ao_server.engine.waits import Waits
from ao_server.engine.workflows.due import DueSteps
from ao_server.engine.workflows.graphs import Graphs
from ao_server.engine.workflows.planning import Planning
from ao_server.engine.workflows.postponed import PostponedExecutions
from ao_server.engine.workflows.tools import Tools
from ao_server.errors import CannotStart
from ao_server.listening import listen
from ao_server.settings import Settings
from ao_server.store import credentials, events, rows, schema, sqlite_library
from ao_server.store.database import Database
from ao_server.store.faults import is_away
from ao_server.store.reader import Reader
from ao_server.store.selections import TaskSelections
from ao_server.store.totals import Totals
from ao_server.store.transactions import in_turn
from ao_server.store.workflow_selections import WorkflowSelections
from ao_server.store.writer import Writer

log = structlog.get_logger("ao_server")

Told = TypeVar("Told")

IN_FLIGHT_SECONDS: Final = 3.0
GRACE_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Server:
    """A running server."""

    address: str
    # The admin key, when this start made it.
    new_admin_key: str | None
    stopped: asyncio.Event


async def run(settings: Settings, ready: Callable[[Server], None]) -> None:
    """Serves until SIGTERM or SIGINT. `ready` is told once requests succeed.

    CannotStart for what only the operator can mend.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _stop_or_die, stop)
    async with serving(settings, stop) as server:
        ready(server)
        await stop.wait()
    if server.stopped.is_set():
        raise SystemExit(1)


@asynccontextmanager
async def serving(settings: Settings, stop: asyncio.Event) -> AsyncGenerator[Server, None]:
    """A server for as long as the context lasts. It sets `stop`, and `Server.stopped`, when it cannot go on."""
    async with AsyncExitStack() as stack:
        stack.enter_context(folder.locked(settings.data_dir))
        database = database_of(settings)
        stack.push_async_callback(database.close)
        connection = await asyncio.to_thread(open_writer, database)
        died = asyncio.Event()

        def die(error: BaseException) -> None:
            log.critical("cannot_go_on", exc_info=error)
            died.set()
            stop.set()

        clock = SystemClock()
        ids = Ids()
        reader = Reader(database)
        totals = Totals(reader)
        stack.push_async_callback(totals.stop)
        registry = Registry(clock, settings.lease)
        selections = TaskSelections(database)
        dispatcher = Dispatcher(registry, selections, clock.monotonic)
        feed = Feed(reader)
        waits = Waits()
        releases = Releases(reader, selections, clock)
        access = Access(reader, clock, keys.gateway_key(settings.data_dir, settings.gateway_key))
        graphs = Graphs()
        workflow_selections = WorkflowSelections(database)
        due_steps = DueSteps(reader, workflow_selections, clock)
        postponed = PostponedExecutions(workflow_selections)

        def stop_task(task: rows.Task) -> None:
            fleet.stop_attempt(task, "requested")

        planning = Planning(Tools(graphs, workflow_selections, ids, stop_task))
        writer = Writer(
            database,
            clock.now,
            # Executions go on first: the tasks that they make are claimed with the rest.
            follow_ups=in_turn(planning.follow_ups, dispatcher.claims),
            count=counters.of,
            observe=_each(
                registry.observe,
                releases.observe,
                due_steps.observe,
                postponed.observe,
                planning.observe,
                dispatcher.observe,
                totals.observe,
                access.observe,
            ),
            publish=_each(feed.publish, waits.publish),
            on_death=die,
        )
        writer.start(connection)
        stack.push_async_callback(writer.stop)
        new_admin_key = await _ensure_project(settings, reader, writer, ids)
        await feed.open()
        fleet = Fleet(writer, registry, dispatcher, selections, clock, ids, random.random)
        were_active = await fleet.restore(reader)
        clearing = Clearing(selections)
        await clearing.restore(reader)
        alerts = Alerts(feed, clock, lambda: database.disk_usage(settings.data_dir), settings.disk_alert)

        recorder = Recorder(writer, ids, audits_tasks=settings.audits_tasks)
        limits = in_memory_or_shared(settings.limits, settings.redis_url)
        stack.push_async_callback(limits.close)
        methods = Methods(access, limits, recorder, ids, clock)
        relay = RelayServicer(methods)
        agents_pb2_grpc.add_AgentServiceServicer_to_server(
            AgentServicer(writer, reader, registry, fleet, clearing, clock, ids), _as_server(methods)
        )
        tasks_pb2_grpc.add_TaskServiceServicer_to_server(
            TaskServicer(writer, totals, feed, waits, registry, fleet, ids), _as_server(methods)
        )
        details = ExecutionDetails(reader, graphs)
        workflows_pb2_grpc.add_WorkflowServiceServicer_to_server(
            WorkflowServicer(writer, reader, details, ids),
            _as_server(methods),
        )
        executions_pb2_grpc.add_ExecutionServiceServicer_to_server(
            ExecutionServicer(writer, reader, waits, registry, details), _as_server(methods)
        )
        monitoring_pb2_grpc.add_MonitoringServiceServicer_to_server(
            MonitoringServicer(writer, totals, feed, clock, settings.data_dir), _as_server(methods)
        )
        runners_pb2_grpc.add_RunnerServiceServicer_to_server(
            RunnerServicer(fleet, writer, reader, random.random, settings.lease), _as_server(methods)
        )
        access_pb2_grpc.add_AccessServiceServicer_to_server(
            AccessServicer(access, limits, writer, reader, clock, ids), _as_server(methods)
        )
        keys_pb2_grpc.add_KeyServiceServicer_to_server(KeyServicer(writer, reader, ids), _as_server(methods))
        oauth_pb2_grpc.add_OAuthClientServiceServicer_to_server(
            OAuthClientServicer(writer, reader, ids), _as_server(methods)
        )
        projects_pb2_grpc.add_ProjectServiceServicer_to_server(
            ProjectServicer(writer, reader, feed, ids), _as_server(methods)
        )
        audit_pb2_grpc.add_AuditServiceServicer_to_server(AuditServicer(reader), _as_server(methods))
        relay_pb2_grpc.add_RelayServiceServicer_to_server(relay, _as_server(methods))

        standard = StandardServices(methods.services)
        listening = await listen(settings, methods, standard)
        upkeep = [
            fleet.sweep(were_active),
            releases.run(writer),
            due_steps.run(writer),
            postponed.run(writer),
            clearing.run(writer),
            alerts.run(writer),
            Unhandled(reader, registry, selections, clock).run(writer),
            Pruning(reader, clock, settings.event_retention, settings.audit_retention).run(writer),
        ]
        if listening.certificates is not None:
            upkeep.append(listening.certificates.follow(log))
        tasks = [_supervised(each, die) for each in upkeep]
        try:
            yield Server(listening.address, new_admin_key, died)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await standard.stopping()
            fleet.announce_stop()
            await _drain(relay, methods)
            await listening.server.stop(GRACE_SECONDS)


def _supervised(work: Coroutine[Any, Any, None], die: Callable[[BaseException], None]) -> asyncio.Task[None]:
    """Work that lasts as long as the server, which cannot go on without it."""
    task = asyncio.create_task(work)
    task.add_done_callback(lambda task: None if task.cancelled() else die(task.exception() or RuntimeError("ended")))
    return task


def _each(*told: Callable[[Told], None]) -> Callable[[Told], None]:
    def tell(what: Told) -> None:
        for each in told:
            each(what)

    return tell


def _stop_or_die(stop: asyncio.Event) -> None:
    if stop.is_set():
        signal.raise_signal(signal.SIGKILL)
    stop.set()


def database_of(settings: Settings) -> Database:
    """The store that the settings name. CannotStart when they name none."""
    try:
        return Database(settings.database_url)
    except (ArgumentError, ValueError) as error:
        # What SQLAlchemy says of it may hold the URL, and so its password.
        reason = str(error) if type(error) is ValueError and settings.database_url not in str(error) else "malformed"
        raise CannotStart(f"the database URL is not usable: {reason}") from None


def open_writer(database: Database) -> Connection:
    """The writer's connection on a current schema."""
    version = sqlite_library.version()
    if database.is_sqlite and sqlite_library.has_wal_reset_race(version):
        log.warning("old_sqlite", version=version, advice="3.51.3 or later closes a rare race")
    try:
        connection = database.connect_writer()
        schema.prepare(connection, database.path)
    except DatabaseError as error:
        place = database.path or "the database"
        reason = str(error.orig).splitlines()[0]
        if not (database.is_sqlite or is_away(error) or getattr(error.orig, "sqlstate", None)):
            # The driver's own objection quotes parts of the URL, in which a password may stand unquoted.
            reason = "its URL has parameters that are not known"
        problem = CannotStart(f"{place} cannot be opened: {reason}")
        if database.is_sqlite or not is_away(error):
            raise problem from None
        # PostgreSQL may be back in a moment: not a reason that only the operator can remove.
        raise ConnectionError(str(problem)) from None
    except OSError as error:
        raise CannotStart(f"{database.path} cannot be opened: {error.strerror}") from None
    return connection


async def _ensure_project(settings: Settings, reader: Reader, writer: Writer, ids: Ids) -> str | None:
    """Makes the default project at the first start; returns its admin key then."""
    if await events.feed(reader, projects.DEFAULT) is None:
        key = keys.new_admin_key(settings.data_dir, settings.admin_key)
        await writer.submit(projects.found_default(key, ids))
        return key
    given = settings.admin_key
    if given is not None and await credentials.by_hash(reader, sha256(given)) is None:
        log.warning("admin_key_ignored", reason="the admin key was made at the first start")
    return None


async def _drain(relay: RelayServicer, methods: Methods) -> None:
    """Waits for calls in flight, then ends every stream."""
    with suppress(TimeoutError):
        async with asyncio.timeout(IN_FLIGHT_SECONDS):
            await relay.idle()
    methods.end_streams()


def _as_server(methods: Methods) -> Any:
    """Generated code takes anything that collects handlers as a server would."""
    return methods

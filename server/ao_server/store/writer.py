"""The one writer: gathers the writes of a moment into one transaction, commits it, then answers everyone.

While a commit runs, more writes arrive; they are the next transaction. So a shared commit makes durability cheap under
load, and a lone write never waits. The thread knows tables and batches, no noun and no rule.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import structlog
from sqlalchemy import Connection

from ao_server.errors import CannotStart, DeadlineExceeded, Problem, Unavailable
from ao_server.store import rows
from ao_server.store.batch import Batch, Statements
from ao_server.store.changes import Change, Operation
from ao_server.store.database import Database, is_away, is_serialization_failure
from ao_server.store.recent import Recent

Answer = TypeVar("Answer")

log = structlog.get_logger("ao_server.store.writer")

MAX_WAITING = 20_000
MAX_BATCH = 1_000
MAX_SERIALIZATION_RETRIES = 5
DEFAULT_TIMEOUT_SECONDS = 30.0

# Given what a transaction has changed so far, yields rounds of further operations for the same transaction.
FollowUps = Callable[[Batch], Iterator[Sequence[Operation[Any]]]]


@dataclass(slots=True)
class _Waiting:
    operation: Operation[Any]
    future: asyncio.Future[Any] | None


@dataclass(slots=True)
class _Committed:
    answers: list[tuple[_Waiting, Any]]
    events: list[rows.Event]
    has_written: bool


class Writer:
    """Every change of the store goes through here, in one order."""

    def __init__(
        self,
        database: Database,
        now: Callable[[], int],
        *,
        follow_ups: FollowUps,
        count: Callable[[list[Change]], Iterable[Any]],
        observe: Callable[[list[Change]], None],
        publish: Callable[[list[rows.Event]], None],
        on_death: Callable[[BaseException], None],
    ) -> None:
        """`count` gives the increments that follow from the changes of a transaction.

        `observe` runs in the writer's thread after each commit, `publish` and `on_death` in the event loop."""
        self._database = database
        self._statements = Statements(database)
        self._recent = Recent()
        self._now = now
        self._follow_ups = follow_ups
        self._count = count
        self._observe = observe
        self._publish = publish
        self._on_death = on_death
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[_Waiting] = deque()
        self._wake = threading.Condition()
        self._stopping = False
        self._dead: BaseException | None = None
        self._away = False
        self._connection: Connection | None = None
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)

    def start(self, connection: Connection) -> None:
        """Starts the thread on the connection that start-up has already opened."""
        self._connection = connection
        self._thread.start()

    async def submit(self, operation: Operation[Answer], timeout: float | None = None) -> Answer:
        """Runs a write and returns its answer once it is durable.

        `timeout` in seconds. Raises the Problem of its decision; Unavailable when the queue is full or the store away;
        DeadlineExceeded when time ran out, in which case the write may or may not happen.
        """
        future: asyncio.Future[Answer] = self._loop.create_future()
        self._enqueue(_Waiting(operation, future))
        try:
            async with asyncio.timeout(DEFAULT_TIMEOUT_SECONDS if timeout is None else timeout):
                return await future
        except TimeoutError:
            raise DeadlineExceeded("the write was not confirmed in time; it may still happen") from None

    def post(self, operation: Operation[Any]) -> None:
        """Runs a write that nobody awaits; its `delivered` hears of the outcome. Unavailable when the queue is full."""
        self._enqueue(_Waiting(operation, None))

    @property
    def is_healthy(self) -> bool:
        """Whether the last transaction that had something to write could be written."""
        return self._dead is None and not self._away

    async def stop(self) -> None:
        """Commits what is waiting, then ends the thread."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join)

    def _enqueue(self, waiting: _Waiting) -> None:
        if self._dead is not None:
            raise Unavailable("the writer has stopped")
        with self._wake:
            if self._stopping:
                raise Unavailable("the server is stopping")
            if len(self._waiting) >= MAX_WAITING:
                raise Unavailable("too many writes are waiting")
            self._waiting.append(waiting)
            self._wake.notify()

    def _run(self) -> None:
        try:
            while batch := self._next():
                self._write(batch)
        except BaseException as error:
            self._die(error)
        finally:
            if self._connection is not None:
                self._connection.close()

    def _next(self) -> list[_Waiting]:
        with self._wake:
            while not self._waiting and not self._stopping:
                self._wake.wait()
            taken = [self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_BATCH))]
        wanted = [waiting for waiting in taken if waiting.future is None or not waiting.future.cancelled()]
        return wanted or (self._next() if taken else [])

    def _write(self, batch: list[_Waiting]) -> None:
        """Commits the batch; if an unexpected error stops it, each of its operations alone, so that one fails alone."""
        try:
            committed = self._commit(batch)
            self._away = self._away and not committed.has_written
            self._loop.call_soon_threadsafe(self._answer, committed)
        except CannotStart:
            self._fail(batch, Unavailable("the store cannot be written now"))
            raise
        except Exception as error:
            if is_away(error):
                self._away = True
                log.warning("store_away", error=str(error.__class__.__name__), waiting=len(batch))
                self._fail(batch, Unavailable("the store cannot be written now"))
            elif len(batch) > 1:
                for waiting in batch:
                    self._write([waiting])
            else:
                log.error("write_failed", exc_info=error)
                self._fail(batch, error)

    def _commit(self, batch: list[_Waiting]) -> _Committed:
        for _ in range(MAX_SERIALIZATION_RETRIES):
            try:
                return self._transaction(batch)
            except Exception as error:
                if not is_serialization_failure(error):
                    raise
        return self._transaction(batch)

    def _transaction(self, waiting: list[_Waiting]) -> _Committed:
        connection = self._connect()
        try:
            with connection.begin():
                cursor = connection.connection.cursor()
                batch = Batch(cursor, self._database, self._statements, self._recent, self._now())
                answers = list(zip(waiting, batch.run([each.operation for each in waiting]), strict=True))
                for operations in self._follow_ups(batch):
                    answered = batch.run(operations)
                    answers += zip([_Waiting(operation, None) for operation in operations], answered, strict=True)
                changes = batch.changes()
                batch.finish(self._count(changes))
                changes += batch.feeds()
        except BaseException as error:
            if is_away(error):
                self._database.leave_transaction(connection)
                self._disconnect()
            raise
        for each, answer in answers:
            if each.operation.committed is not None and not isinstance(answer, Problem):
                each.operation.committed(answer)
        batch.remember()
        self._observe(changes)
        return _Committed(answers, batch.events, batch.writes)

    def _connect(self) -> Connection:
        if self._connection is None or self._connection.invalidated:
            self._disconnect()
            self._connection = self._database.connect_writer()
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None and not self._database.is_sqlite:
            # The advisory lock goes with the session: nothing may be left of it in the pool.
            with suppress(Exception):
                self._connection.invalidate()
                self._connection.close()
            self._connection = None

    def _answer(self, committed: _Committed) -> None:
        if committed.events:
            self._publish(committed.events)
        for waiting, answer in committed.answers:
            future, delivered = waiting.future, waiting.operation.delivered
            if delivered is not None and not isinstance(answer, Problem):
                delivered(answer)
            if future is None or future.done():
                continue
            if isinstance(answer, Problem):
                future.set_exception(answer)
            else:
                future.set_result(answer)

    def _fail(self, batch: list[_Waiting], error: BaseException) -> None:
        futures = [waiting.future for waiting in batch if waiting.future is not None]
        self._loop.call_soon_threadsafe(_reject, futures, error)

    def _die(self, error: BaseException) -> None:
        log.critical("writer_died", exc_info=error)
        with self._wake:
            self._dead = error
            left = list(self._waiting)
            self._waiting.clear()
        self._fail(left, Unavailable("the writer has stopped"))
        self._loop.call_soon_threadsafe(self._on_death, error)


def _reject(futures: Sequence[asyncio.Future[Any]], error: BaseException) -> None:
    for future in futures:
        if not future.done():
            future.set_exception(error)

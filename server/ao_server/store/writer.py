"""The one writer: gathers the writes of a moment into one transaction, commits it, then answers everyone.

While a commit runs, more writes arrive; they are the next transaction. So a shared commit makes durability cheap under
load, and a lone write never waits. The thread knows tables and batches, no noun and no rule.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import structlog
from sqlalchemy import Connection

from ao_server.errors import CannotStart, DeadlineExceeded, Problem, Unavailable
from ao_server.store import rows
from ao_server.store.changes import Change, Operation
from ao_server.store.database import Database
from ao_server.store.faults import is_away
from ao_server.store.transactions import Count, Decided, FollowUps, InDoubt, Transactions

Answer = TypeVar("Answer")

log = structlog.get_logger("ao_server.store.writer")

MAX_WAITING = 20_000
LEAST_BATCH = 16
MAX_BATCH = 1_000
# How often a commit in doubt is looked into while nobody writes.
DOUBT_SECONDS = 1.0
TIMEOUT_SECONDS = 30.0

_MAY_HAVE_HAPPENED = "the writer has stopped; the write may have happened"


@dataclass(slots=True)
class _Waiting:
    operation: Operation[Any]
    future: asyncio.Future[Any] | None


@dataclass(slots=True)
class _Batch:
    """What was waited for, and what it has come to."""

    waiting: list[_Waiting]
    decided: Decided


class Writer:
    """Every change of the store goes through here, in one order."""

    def __init__(
        self,
        database: Database,
        now: Callable[[], int],
        *,
        follow_ups: FollowUps,
        count: Count,
        observe: Callable[[list[Change]], None],
        publish: Callable[[list[rows.Event]], None],
        on_death: Callable[[BaseException], None],
    ) -> None:
        """`observe` runs in the writer's thread after each commit, `publish` and `on_death` in the event loop.

        What raises after a commit, in one of them or in an operation, leaves memory out of step with the store: the
        writer dies of it.
        """
        self._transactions = Transactions(database, now, follow_ups, count)
        self._observe = observe
        self._publish = publish
        self._on_death = on_death
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[_Waiting] = deque()
        self._wake = threading.Condition()
        self._is_asleep = False
        self._stopping = False
        self._dead: BaseException | None = None
        self._away = False
        # What the thread has taken off the queue, and the transaction of which it does not know whether it committed.
        self._taken: list[_Waiting] = []
        self._in_doubt: _Batch | None = None
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)

    def start(self, connection: Connection) -> None:
        """Starts the thread on the connection that start-up has already opened."""
        self._transactions.use(connection)
        self._thread.start()

    def write(self, operation: Operation[Answer]) -> asyncio.Future[Answer]:
        """Queues a write; the future has its answer once it is durable, or the Problem of its decision, or Unavailable
        when the store is away. For callers with a deadline of their own. Unavailable when the queue is full.
        """
        future: asyncio.Future[Answer] = self._loop.create_future()
        self._enqueue(_Waiting(operation, future))
        return future

    async def submit(self, operation: Operation[Answer]) -> Answer:
        """Runs a write and returns its answer, as `write` does, within a bounded time: DeadlineExceeded when that ran
        out, in which case the write may or may not happen.
        """
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                return await self.write(operation)
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
        if self._stopping:
            raise Unavailable("the server is stopping")
        if len(self._waiting) >= MAX_WAITING:
            raise Unavailable("too many writes are waiting")
        self._waiting.append(waiting)
        if self._dead is not None:
            raise Unavailable("the writer has stopped")
        # Under load the thread is awake, and finds it by itself.
        if self._is_asleep:
            with self._wake:
                self._wake.notify()

    def _run(self) -> None:
        try:
            while (batch := self._next()) is not None:
                self._write(batch)
            if not self._is_certain():
                raise TimeoutError("the outcome of the last commit is not known")
        except BaseException as error:
            self._die(error)
        finally:
            self._transactions.close()

    def _next(self) -> list[_Waiting] | None:
        """What is to be written next; None when all is done. Nothing, after a while, while a commit is in doubt."""
        if not self._waiting:
            self._sleep()
        if self._dead is not None or (self._stopping and not self._waiting):
            return None
        waiting = len(self._waiting)
        # Of many, half: while these are written, those before them are answered and the event loop takes in more. All
        # at once they would go round in one lump, for which each part of the way waits in turn.
        count = min(waiting, max(LEAST_BATCH, waiting // 2), MAX_BATCH)
        taken = [self._waiting.popleft() for _ in range(count)]
        self._taken = [waiting for waiting in taken if waiting.future is None or not waiting.future.cancelled()]
        return self._taken

    def _sleep(self) -> None:
        with self._wake:
            # Who queues something after this sees it; who did so before is seen by the loop.
            self._is_asleep = True
            while not self._waiting and not self._stopping and self._dead is None:
                if not self._wake.wait(None if self._in_doubt is None else DOUBT_SECONDS):
                    break
            self._is_asleep = False

    def _write(self, batch: list[_Waiting]) -> None:
        """Commits the batch; if an unexpected error stops it, each of its operations alone, so that one fails alone."""
        if not self._is_certain():
            self._fail(batch, Unavailable("the store cannot be written now"))
            return
        if not batch:
            return
        try:
            decided = self._transactions.run([waiting.operation for waiting in batch])
        except InDoubt as doubt:
            self._away = True
            self._in_doubt = _Batch(batch, doubt.decided)
            self._is_certain()
        except Exception as error:
            if is_away(error):
                self._away = True
                log.warning("store_away", error=str(error.__class__.__name__), waiting=len(batch))
                self._fail(batch, Unavailable("the store cannot be written now"))
            elif isinstance(error, CannotStart):
                raise
            elif len(batch) > 1:
                for waiting in batch:
                    self._write([waiting])
            else:
                log.error("write_failed", exc_info=error)
                self._fail(batch, error)
        else:
            self._conclude(_Batch(batch, decided))

    def _is_certain(self) -> bool:
        """Whether no commit is in doubt any more; one that is, is looked up if the store is there."""
        batch = self._in_doubt
        if batch is None:
            return True
        try:
            has_come_through = self._transactions.has_come_through(batch.decided)
        except Exception as error:
            if not is_away(error):
                raise
            log.warning("commit_in_doubt", error=str(error.__class__.__name__), waiting=len(batch.waiting))
            return False
        log.warning("commit_found_out", has_come_through=has_come_through, waiting=len(batch.waiting))
        self._in_doubt = None
        if has_come_through:
            self._conclude(batch)
        else:
            self._fail(batch.waiting, Unavailable("the store cannot be written now"))
        return True

    def _conclude(self, batch: _Batch) -> None:
        """The transaction is durable."""
        self._away = self._away and not batch.decided.batch.writes
        for operation, answer in batch.decided.answers:
            if operation.committed is not None and not isinstance(answer, Problem):
                operation.committed(answer)
        self._observe(batch.decided.changes)
        self._loop.call_soon_threadsafe(self._answer, batch)

    def _answer(self, batch: _Batch) -> None:
        if self._dead is None:
            try:
                self._tell(batch)
                return
            except Exception as error:
                self._die(error)
        _reject(batch.waiting, Unavailable(_MAY_HAVE_HAPPENED))

    def _tell(self, batch: _Batch) -> None:
        for operation, answer in batch.decided.answers:
            if operation.delivered is not None and not isinstance(answer, Problem):
                operation.delivered(answer)
        if batch.decided.events:
            self._publish(batch.decided.events)
        for waiting, (_, answer) in zip(batch.waiting, batch.decided.answers, strict=False):
            if waiting.future is None or waiting.future.done():
                continue
            if isinstance(answer, Problem):
                waiting.future.set_exception(answer)
            else:
                waiting.future.set_result(answer)

    def _fail(self, batch: Sequence[_Waiting], error: BaseException) -> None:
        self._loop.call_soon_threadsafe(_reject, batch, error)

    def _die(self, error: BaseException) -> None:
        """In whichever thread."""
        with self._wake:
            if self._dead is not None:
                return
            self._dead = error
            left = list(self._waiting)
            self._waiting.clear()
            self._wake.notify()
        log.critical("writer_died", exc_info=error)
        in_doubt = [] if self._in_doubt is None else self._in_doubt.waiting
        self._fail([*in_doubt, *self._taken], Unavailable(_MAY_HAVE_HAPPENED))
        self._fail(left, Unavailable("the writer has stopped"))
        self._loop.call_soon_threadsafe(self._on_death, error)


def _reject(batch: Sequence[_Waiting], error: BaseException) -> None:
    for waiting in batch:
        if waiting.future is not None and not waiting.future.done():
            waiting.future.set_exception(error)

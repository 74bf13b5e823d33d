"""One transaction after the other on the writer's connection: decided, committed, and found out about where the
connection was lost in the middle.
"""

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from ao_server.store import rows
from ao_server.store.batch import Batch, Statements
from ao_server.store.changes import Change, Operation
from ao_server.store.database import Database
from ao_server.store.faults import is_away, is_serialization_failure
from ao_server.store.recent import Recent

MAX_SERIALIZATION_RETRIES = 5
# Each time the source of follow-ups has heard of one that fails, and leaves it out.
MAX_FOLLOW_UP_RETRIES = 50

# Given what a transaction has changed so far, yields rounds of further operations for the same transaction. What fails
# one of a round is told to its `failed`, and thrown into the source, which raises it again and yields something else
# the next time that it is asked.
FollowUps = Callable[[Batch], Generator[Sequence[Operation[Any]], None, None]]


def in_turn(*sources: FollowUps) -> FollowUps:
    """What each of these entails, one after the other: a later one sees what the earlier ones have changed."""

    def follow_ups(batch: Batch) -> Generator[Sequence[Operation[Any]], None, None]:
        for source in sources:
            yield from source(batch)

    return follow_ups


_Answers = list[tuple[Operation[Any], Any]]
_Run = Callable[[Batch, Sequence[Operation[Any]]], list[Any]]
# The increments that follow from the changes of a transaction.
Count = Callable[[list[Change]], Iterable[Any]]


@dataclass(slots=True)
class Decided:
    """What a transaction has come to: the answers to its operations, then those to their follow-ups."""

    answers: list[tuple[Operation[Any], Any]]
    changes: list[Change]
    batch: Batch

    @property
    def events(self) -> list[rows.Event]:
        """With their positions."""
        return self.batch.events


class InDoubt(Exception):
    """The connection was lost at the commit: the transaction may have come through or not."""

    def __init__(self, decided: Decided) -> None:
        super().__init__()
        self.decided = decided


class _FollowUpFailed(Exception):
    """A follow-up raised what it should not: its source has been told, and the transaction is tried again."""


class Transactions:
    """The only ones that write."""

    def __init__(self, database: Database, now: Callable[[], int], follow_ups: FollowUps, count: Count) -> None:
        self._database = database
        self._statements = Statements(database)
        self._recent = Recent()
        self._count = count
        self._now = now
        self._follow_ups = follow_ups
        self._connection: Connection | None = None

    def use(self, connection: Connection) -> None:
        """Goes on with a connection that is open."""
        self._connection = connection

    def close(self) -> None:
        """Ends the connection."""
        if self._connection is not None:
            self._connection.close()

    def run(self, operations: Sequence[Operation[Any]]) -> Decided:
        """One transaction; repeated where the database gave it up for another, or a follow-up is to be left out.

        InDoubt when it may have been committed; whatever else it raises says that it was not.
        """
        serialization_failures = follow_up_failures = 0
        run: _Run = Batch.run
        while True:
            try:
                return self._transaction(operations, run)
            except _FollowUpFailed:
                follow_up_failures += 1
                if follow_up_failures > MAX_FOLLOW_UP_RETRIES:
                    raise
                run = _one_by_one
            except Exception as error:
                if is_serialization_failure(error):
                    serialization_failures += 1
                    if serialization_failures > MAX_SERIALIZATION_RETRIES:
                        raise
                elif is_away(error) or isinstance(error, InDoubt) or run is _one_by_one:
                    raise
                else:
                    # It may be a follow-up that the store does not take.
                    run = _one_by_one

    def has_come_through(self, decided: Decided) -> bool:
        """Whether a transaction that was in doubt is committed, which its events in the store show: nobody else writes
        there, and a lost connection, with all that it was about to do, is gone before another has its lock.
        """
        portion = decided.batch.portions()[0]
        of_portions = self._statements.of[rows.EventPortion]
        with self._begun() as cursor:
            cursor.execute(of_portions.select_by_key, (portion.project_id, portion.last))
            found = [of_portions.row(*values) for values in cursor.fetchall()]
        if found == [portion]:
            decided.batch.remember()
        return found == [portion]

    def _transaction(self, operations: Sequence[Operation[Any]], run: _Run) -> Decided:
        decided: Decided | None = None
        try:
            with self._begun() as cursor:
                batch = Batch(cursor, self._database, self._statements, self._recent, self._now())
                answers = list(zip(operations, run(batch, operations), strict=True))
                answers += self._follow_up(batch, run)
                changes = batch.changes()
                batch.finish(self._count(changes))
                changes += batch.feeds()
                decided = Decided(answers, changes, batch)
        except Exception as error:
            # Without an event there is nothing to know it by, and nothing that anybody was told of.
            if decided is not None and decided.events and is_away(error) and not is_serialization_failure(error):
                raise InDoubt(decided) from error
            raise
        batch.remember()
        return decided

    def _follow_up(self, batch: Batch, run: _Run) -> _Answers:
        answers: _Answers = []
        source = self._follow_ups(batch)
        try:
            for operations in source:
                try:
                    answers += zip(operations, run(batch, operations), strict=True)
                except Exception as error:
                    if _is_of_the_database(error):
                        raise
                    source.throw(error)
        except Exception as error:
            if _is_of_the_database(error):
                raise
            raise _FollowUpFailed from error
        return answers

    @contextmanager
    def _begun(self) -> Generator[Any, None, None]:
        """The cursor of a transaction of the driver's own, at half the cost of SQLAlchemy's; committed at the end."""
        connection = self._connect()
        dialect, driver = self._database.dialect, connection.connection
        try:
            # Closed by this thread: the collector of another would reset the statements that both have in use.
            with closing(driver.cursor()) as cursor:
                self._database.begin(cursor)
                try:
                    yield cursor
                except BaseException:
                    dialect.do_rollback(driver)
                    raise
                dialect.do_commit(driver)
        except BaseException as error:
            if is_away(error):
                self._recent.clear()
                self._database.leave_transaction(connection)
                self._disconnect()
            raise

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


def _one_by_one(batch: Batch, operations: Sequence[Operation[Any]]) -> list[Any]:
    """As `Batch.run`, at more cost: which of them fails is found out, and told."""
    answers: list[Any] = []
    for operation in operations:
        try:
            answers += batch.run([operation])
            batch.flush()
        except Exception as error:
            if operation.failed is not None and not _is_of_the_database(error):
                operation.failed(error)
            raise
    return answers


def _is_of_the_database(error: Exception) -> bool:
    return is_away(error) or is_serialization_failure(error)

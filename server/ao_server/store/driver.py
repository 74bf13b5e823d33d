"""Connections of the drivers themselves, for the reads that every user waits for.

SQLAlchemy's asynchronous engine costs a read about a millisecond: compiled again, three hops between threads, a
transaction around it. Here a statement is text, its parameters a tuple, its answer tuples, in one hop and outside of
any transaction. One statement sees one moment; what must be of one moment is one statement.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

import aiosqlite

from ao_server.errors import Unavailable
from ao_server.store.faults import is_away

if TYPE_CHECKING:
    import psycopg

MAX_WAITING: Final = 1_000
WAIT_SECONDS: Final = 10.0
# The statements that run here have one good plan, by an index in its order. Without statistics the planner may think
# otherwise, and planning anew costs more than running.
PLANNING: Final = (
    "SET plan_cache_mode = force_generic_plan",
    "SET enable_seqscan = off",
    "SET enable_bitmapscan = off",
    "SET enable_hashjoin = off",
    "SET enable_mergejoin = off",
    "SET enable_material = off",
    "SET enable_sort = off",
    "SET jit = off",
)


class Opened(Protocol):
    """One open connection, used for one statement at a time."""

    async def fetch(self, sql: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
        """All rows of a statement."""
        ...

    @property
    def is_usable(self) -> bool:
        """Whether it can take another statement."""
        ...

    async def close(self) -> None:
        """Closes it."""
        ...


class Connections:
    """A few connections, opened when first needed, lent for one statement each."""

    def __init__(self, open_one: Callable[[], Awaitable[Opened]], size: int) -> None:
        self._open_one = open_one
        self._free: list[Opened] = []
        self._left = size
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._is_closed = False

    async def fetch(self, sql: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
        """All rows of a statement. Unavailable when all connections stay busy; raises what `is_away` is true of."""
        was_used, connection = await self._take()
        try:
            return await connection.fetch(sql, parameters)
        except Exception as error:
            # One that lay idle may have died of it, as when PostgreSQL was restarted: that says nothing of the store.
            if not is_away(error) or connection.is_usable or not was_used:
                raise
        finally:
            await self._give_back(connection)
        return await self.fetch(sql, parameters)

    async def close(self) -> None:
        """Closes every connection, those that are lent once they come back."""
        self._is_closed = True
        while self._free:
            await self._free.pop().close()

    async def _take(self) -> tuple[bool, Opened]:
        """A connection, and whether it was used before."""
        while not self._free and not self._left:
            await self._wait()
        if self._free:
            return True, self._free.pop()
        self._left -= 1
        try:
            return False, await self._open_one()
        except BaseException:
            self._left += 1
            self._wake()
            raise

    async def _wait(self) -> None:
        if len(self._waiting) >= MAX_WAITING:
            raise Unavailable("too many reads are waiting")
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self._wake()
            if isinstance(error, TimeoutError):
                raise Unavailable("too many reads are waiting") from None
            raise

    async def _give_back(self, connection: Opened) -> None:
        if connection.is_usable and not self._is_closed:
            self._free.append(connection)
        else:
            self._left += 1
            await connection.close()
        self._wake()

    def _wake(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return


class SqliteConnection:
    """A read-only connection in a thread of its own."""

    def __init__(self, connection: aiosqlite.Connection) -> None:
        self._connection = connection

    @classmethod
    async def open(cls, uri: str) -> "SqliteConnection":
        """Opens a `file:` URI."""
        return cls(await aiosqlite.connect(uri, uri=True, isolation_level=None, cached_statements=500))

    async def fetch(self, sql: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
        """All rows of a statement."""
        found: Any = await self._connection.execute_fetchall(sql, parameters)
        return found

    @property
    def is_usable(self) -> bool:
        """It lasts as long as its file."""
        return True

    async def close(self) -> None:
        """Ends the thread."""
        await self._connection.close()


class PostgresConnection:
    """A connection that prepares each statement once. A statement that was cut short may be in it still: it is not used
    again.
    """

    def __init__(self, connection: "psycopg.AsyncConnection[tuple[Any, ...]]") -> None:
        self._connection = connection
        self._is_whole = True

    @classmethod
    async def open(cls, url: str) -> "PostgresConnection":
        """Opens a `postgresql://` URL."""
        # A tenth of a second that a start on SQLite does without.
        import psycopg

        connection = await psycopg.AsyncConnection.connect(url, autocommit=True)
        connection.prepared_max = 500
        for setting in PLANNING:
            await connection.execute(setting)
        return cls(connection)

    async def fetch(self, sql: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
        """All rows of a statement."""
        self._is_whole = False
        text: Any = sql
        cursor = await self._connection.execute(text, parameters, prepare=True)
        found = await cursor.fetchall()
        self._is_whole = True
        return found

    @property
    def is_usable(self) -> bool:
        """Whether the last statement came to its end."""
        return self._is_whole and not self._connection.closed

    async def close(self) -> None:
        """Says goodbye."""
        await self._connection.close()

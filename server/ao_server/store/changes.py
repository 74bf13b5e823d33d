"""What a write is: rows to load, a pure decision over them, and the changes it asks for.

What comes about with every write is a struct: a frozen dataclass takes five times as long to make.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from ao_server.store.rows import Event

Answer = TypeVar("Answer")
RowType = TypeVar("RowType")


class Key(msgspec.Struct, frozen=True, gc=False):
    """A row by its primary key, in the order of the table's key columns."""

    row: type[Any]
    values: tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Selection:
    """A named query. It yields one tuple per match, of one row for each type in `rows`; `parameters` are positional.

    It sees what the batch has flushed before it, so a decision checks the state of the rows it is given.
    """

    sql: str
    parameters: Sequence[Any]
    rows: tuple[type[Any], ...]


@dataclass(frozen=True, slots=True)
class ValueSelection:
    """A named query of some columns. It yields a tuple per match, as it stands in the store with all that the batch has
    flushed before it.
    """

    sql: str
    parameters: Sequence[Any]


@dataclass(frozen=True, slots=True)
class Deletion:
    """Takes out old rows: a project's with a `column` of at most `until`, oldest first, at most `limit` of them."""

    row: type[Any]
    project_id: str
    column: str
    until: int | str
    limit: int


class Found(Protocol):
    """What a decision sees: the rows asked for, as the decisions before it in the same transaction left them."""

    @property
    def selected(self) -> Sequence[tuple[Any, ...]]:
        """What the operation's selection found."""
        ...

    def get(self, row: type[RowType], *key: str | int) -> RowType | None:
        """The row with this key, or None. The key must have been asked for."""
        ...


class Changes(msgspec.Struct, Generic[Answer]):
    """What a decision asks for; nothing of it happens unless all of it commits."""

    answer: Answer
    # New and changed rows; which of the two is known from whether the key was found.
    rows: list[Any] = []
    # Positions are given by the writer, in commit order.
    events: list[Event] = []
    # For rows that no decision of this transaction looks at.
    deletions: list[Deletion] = []

    def include(self, others: Iterable["Changes[Any]"]) -> None:
        """Takes in what other decisions of the same operation ask for."""
        for other in others:
            self.rows += other.rows
            self.events += other.events
            self.deletions += other.deletions


class Operation(msgspec.Struct, Generic[Answer], frozen=True):
    """A write. `decide(found, now)` is pure and may raise a Problem, which fails this operation alone.

    It may run more than once: a transaction that could not commit is decided anew.
    """

    decide: Callable[[Found, int], Changes[Answer]]
    keys: Sequence[Key] = ()
    selection: Selection | ValueSelection | None = None
    # Runs in the writer's thread between this commit and the next transaction: for memory that must agree with it.
    committed: Callable[[Answer], None] | None = None
    # Runs in the event loop after the commit, in the order of the operations, before anyone is answered or hears of its
    # events: work that it hands out is on its way first.
    delivered: Callable[[Answer], None] | None = None
    # Of a follow-up: runs in the writer's thread where it, or the store with what it decided, has failed a transaction,
    # which is tried again.
    failed: Callable[[Exception], None] | None = None


# One row before and after a transaction, before it None where it is new.
Change = tuple[Any, Any]

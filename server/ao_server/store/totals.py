"""Totals of lists, kept in memory: a view for each combination of columns that is asked for, counted once from the
store's own counters or from the tasks, then kept current by the commits.

Nothing is done, by readers or by the writer, for a combination that nobody asks for. One server writes to a store, so
that it hears of every commit, before whoever waits for it.
"""

import asyncio
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import text

from ao_server.store import rows
from ao_server.store.changes import Change
from ao_server.store.filters import DIMENSIONS, TaskFilter
from ao_server.store.reader import Reader
from ao_server.store.views import Counted, Move, Timed, ViewKey, Window

# How long a list waits for a view by periods; it is answered without, and the view is counted behind it.
PATIENCE_SECONDS: Final = 0.05
# Moves that a view lets lie before they are added to it.
MAX_BACKLOG: Final = 2_000
# A view that nobody asked for so long is given up.
IDLE_SECONDS: Final = 900.0
MAX_VIEWS: Final = 200


@dataclass(slots=True)
class _Kept:
    """A view with what was committed since it was last looked at: position of the feed, and moves."""

    key: ViewKey
    is_timed: bool
    asked_at: float
    # By the event loop's clock.
    patience_ends: float
    counting: asyncio.Task[None] | None = None
    view: Counted | Timed | None = None
    position: int = 0
    backlog: list[tuple[int | None, list[Move]]] = field(default_factory=list[Any])
    waiting: int = 0

    def catch_up(self) -> None:
        view = self.view
        assert view is not None
        for position, moves in self.backlog:
            # What was committed before the view was counted is in it.
            if position is None or position > self.position:
                view.add(moves)
        self.backlog.clear()
        self.waiting = 0


class Totals:
    """How many tasks there are, by the values of any of their columns."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self._lock = threading.Lock()
        self._kept: dict[tuple[bool, ViewKey], _Kept] = {}

    def observe(self, changes: Sequence[Change]) -> None:
        """Hears of a commit, in the writer's thread."""
        if not self._kept:
            return
        moves: dict[str, list[Move]] = {}
        positions: dict[str, int] = {}
        for before, after in changes:
            if isinstance(after, rows.Feed):  # pyright: ignore[reportArgumentType] - a struct at run time
                positions[after.project_id] = after.last
            elif isinstance(after, rows.Task) and _has_moved(before, after):  # pyright: ignore[reportArgumentType]
                moves.setdefault(after.project_id, []).append(Move(before, after))
        if moves:
            with self._lock:
                self._hand_out(moves, positions)

    async def total(self, project_id: str, chosen: TaskFilter) -> int:
        """How many tasks have the wanted values; labels and times of the filter are not looked at."""
        wanted = chosen.wanted
        kept = self._keep(False, ViewKey(project_id, tuple(wanted)))
        if kept.counting is not None:
            await asyncio.shield(kept.counting)
        with self._lock:
            view = self._current(kept)
            assert isinstance(view, Counted)
            return view.total(tuple(wanted.values()))

    async def timed(self, project_id: str, chosen: TaskFilter) -> "Spread | None":
        """When the tasks with the wanted values and labels were created; None while that is being counted, and where
        it is too much to hold.
        """
        wanted = chosen.wanted
        agent_id = wanted.pop("agent_id", None)
        kept = self._keep(True, ViewKey(project_id, tuple(wanted), tuple(chosen.labels), agent_id))
        if kept.counting is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(kept.patience_ends):
                    await asyncio.shield(kept.counting)
        with self._lock:
            view = self._current(kept)
            if not isinstance(view, Timed) or view.is_void:
                return None
        return Spread(self._lock, view, tuple(wanted.values()))

    async def stop(self) -> None:
        """Ends what is being counted."""
        counting = [kept.counting for kept in self._kept.values() if kept.counting is not None]
        for task in counting:
            task.cancel()
        await asyncio.gather(*counting, return_exceptions=True)

    def _keep(self, is_timed: bool, key: ViewKey) -> _Kept:
        kept = self._kept.get((is_timed, key))
        now = time.monotonic()
        if kept is None or (isinstance(kept.view, Timed) and kept.view.is_void and now - kept.asked_at > IDLE_SECONDS):
            loop = asyncio.get_running_loop()
            kept = _Kept(key, is_timed, now, loop.time() + PATIENCE_SECONDS)
            with self._lock:
                if len(self._kept) >= MAX_VIEWS:
                    self._give_up(min(self._kept.values(), key=lambda each: each.asked_at))
                self._kept[is_timed, key] = kept
            kept.counting = loop.create_task(self._count(kept))
            kept.counting.add_done_callback(_heed)
        if not (isinstance(kept.view, Timed) and kept.view.is_void):
            kept.asked_at = now
        return kept

    async def _count(self, kept: _Kept) -> None:
        try:
            position, view = await (_timed if kept.is_timed else _counted)(self.reader, kept.key)
        except BaseException:
            with self._lock:
                self._give_up(kept)
            raise
        with self._lock:
            kept.position, kept.view, kept.counting = position, view, None

    def _current(self, kept: _Kept) -> Counted | Timed | None:
        if kept.view is not None and kept.backlog:
            kept.catch_up()
        return kept.view

    def _give_up(self, kept: _Kept) -> None:
        if self._kept.get((kept.is_timed, kept.key)) is kept:
            del self._kept[kept.is_timed, kept.key]

    def _hand_out(self, moves: dict[str, list[Move]], positions: dict[str, int]) -> None:
        now = time.monotonic()
        for kept in list(self._kept.values()):
            own = moves.get(kept.key.project_id)
            if own is None:
                continue
            kept.backlog.append((positions.get(kept.key.project_id), own))
            kept.waiting += len(own)
            if kept.view is not None and kept.waiting > MAX_BACKLOG:
                if now - kept.asked_at > IDLE_SECONDS:
                    self._give_up(kept)
                else:
                    kept.catch_up()


@dataclass(frozen=True, slots=True)
class Spread:
    """When the tasks of one filter were created."""

    _lock: threading.Lock
    _view: Timed
    _values: tuple[Any, ...]

    @property
    def width(self) -> int:
        """Microseconds of one period."""
        return self._view.width

    def total(self, begin: int | None = None, end: int | None = None) -> int:
        """How many there are in the periods from `begin` up to, not including, `end`."""
        with self._lock:
            return self._view.total(self._values, begin, end)

    def window(self, begin: int | None, end: int | None, offset: int, limit: int) -> Window:
        """As `Timed.window`."""
        with self._lock:
            return self._view.window(self._values, begin, end, offset, limit)


def _heed(counting: asyncio.Task[None]) -> None:
    """Whoever waits for it hears of its failure; where nobody does, the next one to ask begins anew."""
    if not counting.cancelled():
        counting.exception()


def _has_moved(before: rows.Task | None, after: rows.Task) -> bool:
    return before is None or before.status != after.status or before.agent_id != after.agent_id


async def _counted(reader: Reader, key: ViewKey) -> tuple[int, Counted]:
    names = "".join(f", {name}" for name in key.shape)
    inner = f"SELECT SUM(tasks) AS tasks{names} FROM task_counts WHERE project_id = :project"
    if key.shape:
        inner += f" GROUP BY {', '.join(key.shape)}"
    view = Counted(key)
    position, found = await _of_one_moment(reader, key, [*key.shape, "tasks"], inner, {})
    view.load(found)
    return position, view


async def _timed(reader: Reader, key: ViewKey) -> tuple[int, Timed]:
    ends = " ".join(
        f"(SELECT created_at FROM tasks WHERE project_id = :project ORDER BY id{order} LIMIT 1){comma}"
        for order, comma in (("", ","), (" DESC", ""))
    )
    async with reader.connect() as connection:
        oldest, newest = (await connection.execute(text(f"SELECT {ends}"), {"project": key.project_id})).one()
    view = Timed(key, oldest or 0, newest or 0)
    names = "".join(f"t.{name}, " for name in key.shape)
    parameters: dict[str, Any] = {"width": view.width}
    source = "tasks t"
    where = "t.project_id = :project"
    if key.agent_id is not None:
        parameters["agent"] = key.agent_id
        where += " AND t.agent_id = :agent"
    for place, (label, value) in enumerate(key.labels):
        parameters[f"key{place}"] = label
        source += f" JOIN task_labels l{place} ON l{place}.project_id = t.project_id AND l{place}.task_id = t.id"
        where += f" AND l{place}.project_id = :project AND l{place}.key = :key{place}"
        if value is not None:
            parameters[f"value{place}"] = value
            where += f" AND l{place}.value = :value{place}"
    # SQLite would take an index in the order of the groups before the one of the agent or label.
    grouped = names.replace("t.", "+t.") if reader.database.is_sqlite else names
    numbers = (
        f"SELECT {names}t.created_at / :width AS period, COUNT(*) AS tasks FROM {source} WHERE {where}"
        f" GROUP BY {grouped}period"
    )
    # One text for all periods of the same values: a hundred thousand rows would keep the event loop from its work.
    joined = "group_concat" if reader.database.is_sqlite else "string_agg"
    values = ", ".join(key.shape)
    listed = f"{joined}(period || ' ' || tasks, ' ')"
    inner = f"SELECT {values + ', ' if values else ''}{listed} AS listed FROM ({numbers}) AS numbers"
    inner += f" GROUP BY {values}" if values else ""
    position, found = await _of_one_moment(reader, key, [*key.shape, "listed"], inner, parameters)
    await asyncio.to_thread(view.load, found)
    return position, view


async def _of_one_moment(
    reader: Reader, key: ViewKey, columns: Sequence[str], inner: str, parameters: dict[str, Any]
) -> tuple[int, list[Sequence[Any]]]:
    """What a statement finds, and the position of the feed in the same moment."""
    assert set(key.shape) <= set(DIMENSIONS)
    listed = "".join(f", found.{name}" for name in columns)
    statement = text(
        f"SELECT feeds.last{listed} FROM (SELECT 1) AS always LEFT JOIN feeds ON feeds.project_id = :project"
        f" LEFT JOIN ({inner}) AS found ON 1 = 1"
    )
    async with reader.connect() as connection:
        found = (await connection.execute(statement, {"project": key.project_id, **parameters})).all()
    # No tasks: one row without them.
    return found[0][0] or 0, [row[1:] for row in found] if found[0][-1] is not None else []

"""Lists of tasks: any page of any filter, with its exact total, at the cost of about one page.

Totals come from memory (`totals`), so that a list is one statement. It goes along the index that has the fewest entries
to look at, from the nearer end; where those would still be many, to the period in which the page begins.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from ao_server.errors import Invalid
from ao_server.store import list_sql, rows
from ao_server.store.filters import TaskFilter
from ao_server.store.id_times import first_at, time_of
from ao_server.store.list_sql import Part, Way
from ao_server.store.reader import Page
from ao_server.store.totals import Spread, Totals

# A result of at most this many bytes of text is shown in lists and events.
INLINE_RESULT_BYTES: Final = 16 * 1024
# More entries than this are not looked at: the page is looked for by the periods that its tasks were created in.
MAX_PASSED: Final = 150
# Where fewer than one in so many entries match, only what was created in those periods is looked at.
SPARSE: Final = 3
_TASK_COLUMNS: Final = len(rows.TABLES[rows.Task].columns)


@dataclass(frozen=True, slots=True)
class ListedTask:
    """A task as lists show it. `result_omitted`: it has a result that is too long for a list."""

    task: rows.Task
    result: str | None
    result_omitted: bool


@dataclass(frozen=True, slots=True)
class _Found:
    """How many match, and, where they were counted by periods, which periods are wholly in the filter's time, and how
    many are later than those.
    """

    total: int
    spread: Spread | None = None
    first: int | None = None
    end: int | None = None
    later: int = 0


async def page(
    totals: Totals, project_id: str, chosen: TaskFilter, *, page: int, limit: int, starting_after: str | None = None
) -> Page[ListedTask]:
    """A page of tasks, newest first, by its number or by the task in front of it. Invalid when that does not exist."""
    if starting_after is not None:
        await _check_there(totals, project_id, starting_after)
    way, entries = await _way(totals, project_id, chosen)
    found = await _found(totals, project_id, chosen, way, entries)
    offset = (page - 1) * limit
    if offset >= found.total:
        return Page([], found.total)
    part = Part(chosen.id_from, chosen.id_before, offset, min(limit, found.total - offset))
    if starting_after is not None:
        part = replace(part, end=min(starting_after, chosen.id_before or starting_after), limit=limit)
    elif chosen.execution_id is None:
        part = await _nearer(totals, project_id, chosen, part, found, entries)
    sql, parameters = list_sql.page(project_id, chosen, way, part, INLINE_RESULT_BYTES)
    listed = [_listed(values) for values in await totals.reader.fetch(totals.reader.database.text(sql), parameters)]
    return Page(listed[::-1] if part.is_ascending else listed, found.total)


async def _check_there(totals: Totals, project_id: str, task_id: str) -> None:
    sql = totals.reader.database.text("SELECT 1 FROM tasks WHERE project_id = ? AND id = ?")
    if not await totals.reader.fetch(sql, (project_id, task_id)):
        raise Invalid.field("starting_after", f"there is no task {task_id}")


async def _way(totals: Totals, project_id: str, chosen: TaskFilter) -> tuple[Way, int]:
    """The index with the fewest entries that the filter leads to, and their number."""
    if chosen.execution_id is not None:
        return Way(), 0
    wanted = chosen.wanted
    ways: list[tuple[str, ...]] = [(name,) for name in list_sql.INDEXED if name in wanted]
    if merged := tuple(name for name in list_sql.MERGED if name in wanted):
        ways.append(merged)
    if not ways and not chosen.labels:
        ways.append(())
    counted = [
        (await totals.total(project_id, TaskFilter(**{name: wanted[name] for name in names})), Way(names))
        for names in ways
    ]
    for label in chosen.labels:
        spread = await totals.timed(project_id, TaskFilter(labels=[label]))
        counted.append((spread.total() if spread else 0, Way(label=label)))
    entries, way = min(counted, key=lambda each: each[0])
    return way, entries


async def _found(totals: Totals, project_id: str, chosen: TaskFilter, way: Way, entries: int) -> _Found:
    if chosen.execution_id is not None:
        return _Found(await _counted(totals, project_id, chosen, way))
    is_timed = chosen.id_from is not None or chosen.id_before is not None
    if not is_timed and not chosen.labels:
        return _Found(await totals.total(project_id, chosen))
    if not entries and way.label is None:
        return _Found(0)
    spread = await totals.timed(project_id, chosen)
    if spread is None:
        return _Found(await _counted(totals, project_id, chosen, way))
    if not is_timed:
        return _Found(spread.total(), spread)
    return await _between(totals, project_id, chosen, way, spread)


async def _between(totals: Totals, project_id: str, chosen: TaskFilter, way: Way, spread: Spread) -> _Found:
    """Whole periods from memory; what is earlier and later than those within the filter's time is counted."""
    width = spread.width
    first = None if chosen.id_from is None else -(-time_of(chosen.id_from) // width)
    end = None if chosen.id_before is None else time_of(chosen.id_before) // width
    if first is not None and end is not None and first >= end:
        return _Found(await _counted(totals, project_id, chosen, way))
    edges: list[Part] = []
    if end is not None:
        edges.append(Part(_begin_of(end, spread), chosen.id_before))
    if first is not None:
        edges.append(Part(chosen.id_from, _begin_of(first, spread)))
    counted = await _counts(totals, project_id, chosen, way, edges)
    later = counted[0] if end is not None else 0
    return _Found(spread.total(first, end) + sum(counted), spread, first, end, later)


async def _counted(totals: Totals, project_id: str, chosen: TaskFilter, way: Way) -> int:
    """All that match, looked at one by one."""
    (whole,) = await _counts(totals, project_id, chosen, way, [Part(chosen.id_from, chosen.id_before)])
    return whole


async def _counts(
    totals: Totals, project_id: str, chosen: TaskFilter, way: Way, parts: Sequence[Part]
) -> tuple[int, ...]:
    sql, parameters = list_sql.counts(project_id, chosen, way, parts)
    ((*counted,),) = await totals.reader.fetch(totals.reader.database.text(sql), parameters)
    return tuple(counted)


async def _nearer(totals: Totals, project_id: str, chosen: TaskFilter, part: Part, found: _Found, entries: int) -> Part:
    """The same part of the list, with fewer entries to pass."""
    behind = found.total - part.offset - part.limit
    passed = (min(part.offset, behind) + part.limit) * max(1, entries // found.total)
    if passed > MAX_PASSED:
        if found.spread is None and chosen.id_from is None and chosen.id_before is None:
            found = replace(found, spread=await totals.timed(project_id, chosen))
        if found.spread is not None:
            # PostgreSQL would compare every entry with every period.
            is_sparse = totals.reader.database.is_sqlite and entries > SPARSE * found.total
            return _by_period(part, found, found.spread, is_sparse=is_sparse)
    if behind < part.offset:
        return replace(part, offset=behind, is_ascending=True)
    return part


def _by_period(part: Part, found: _Found, spread: Spread, *, is_sparse: bool) -> Part:
    if part.offset >= found.later:
        window = spread.window(found.first, found.end, part.offset - found.later, part.limit)
        if window.periods:
            part = replace(part, offset=window.left)
            if is_sparse and window.is_whole:
                return replace(part, begin=None, end=None, ranges=_ranges(window.periods, spread))
            return replace(part, end=_begin_of(window.periods[0] + 1, spread))
    behind = found.total - part.offset - part.limit
    return replace(part, offset=behind, is_ascending=True) if behind < part.offset else part


def _ranges(periods: Sequence[int], spread: Spread) -> list[tuple[str, str]]:
    """From the first id of a period to the first behind it; what is adjacent is one."""
    ends: list[list[int]] = []
    for period in periods:
        if ends and ends[-1][0] == period + 1:
            ends[-1][0] = period
        else:
            ends.append([period, period + 1])
    return [(_begin_of(begin, spread), _begin_of(end, spread)) for begin, end in ends]


def _begin_of(period: int, spread: Spread) -> str:
    return first_at("task", period * spread.width)


def _listed(values: Sequence[Any]) -> ListedTask:
    result, has_result = values[_TASK_COLUMNS:]
    return ListedTask(rows.made(rows.Task, values[:_TASK_COLUMNS]), result, bool(has_result) and result is None)

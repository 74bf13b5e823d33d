"""The SQL of lists of tasks: ids first, along one index in the order of ids, then the rows of one page.

The index is chosen by who asks, from the counters, and not by the planner, which has no statistics: a condition that is
to be looked up in the row stands in `(...) IS TRUE`, where no planner takes an index for it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Final

from ao_server.store import rows, tables
from ao_server.store.filters import Label, TaskFilter

PRIORITIES: Final = range(4)
# Columns with an index on them and the id. Status and priority have one together: a filter by one of them is a merge
# over the values of the other.
INDEXED: Final = ("agent_id", "type", "agent_type")
MERGED: Final = ("priority", "status")

_COLUMNS: Final = ", ".join(f't."{column.name}"' for column in rows.TABLES[rows.Task].columns)


@dataclass(frozen=True, slots=True)
class Way:
    """Along which index tasks are looked for: that of these columns of the filter, or of one of its labels, or else
    that of the ids.
    """

    columns: tuple[str, ...] = ()
    label: Label | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """A part of what is found: ids from `begin` up to, not including, `end`, and where `ranges` are given, only those
    within one of them; passes `offset`, then takes `limit`.
    """

    begin: str | None = None
    end: str | None = None
    offset: int = 0
    limit: int = 0
    is_ascending: bool = False
    ranges: Sequence[tuple[str, str]] = ()


class _Text:
    """A statement with its parameters in the order of their marks."""

    def __init__(self) -> None:
        self.sql: list[str] = []
        self.parameters: list[Any] = []

    def add(self, sql: str, *parameters: Any) -> None:
        self.sql.append(sql)
        self.parameters += parameters


Statement = tuple[str, Sequence[Any]]


def page(project_id: str, chosen: TaskFilter, way: Way, part: Part, inline_bytes: int) -> Statement:
    """The tasks of a part in its order, each followed by its result, if that has at most so many bytes, and by whether
    it has one.
    """
    text = _Text()
    _ranges(text, part)
    text.add(f"SELECT {_COLUMNS}, CASE WHEN r.bytes <= ? THEN r.result END, r.task_id IS NOT NULL FROM (", inline_bytes)
    _ids(text, project_id, chosen, way, part)
    order = "id" if part.is_ascending else "id DESC"
    text.add(f" ORDER BY {order} LIMIT ? OFFSET ?", part.limit, part.offset)
    text.add(
        ") AS p CROSS JOIN tasks t LEFT JOIN results r ON r.project_id = ? AND r.task_id = p.id"
        f" WHERE t.project_id = ? AND t.id = p.id ORDER BY p.{order}",
        project_id,
        project_id,
    )
    return "".join(text.sql), text.parameters


def counts(project_id: str, chosen: TaskFilter, way: Way, parts: Iterable[Part]) -> Statement:
    """How many there are in each part."""
    text = _Text()
    for number, part in enumerate(parts):
        text.add("SELECT (SELECT COUNT(*) FROM (" if not number else ", (SELECT COUNT(*) FROM (")
        _ids(text, project_id, chosen, way, part)
        text.add(") AS p)")
    return "".join(text.sql), text.parameters


def _ids(text: _Text, project_id: str, chosen: TaskFilter, way: Way, part: Part) -> None:
    wanted = chosen.wanted
    rest = [name for name in wanted if name not in way.columns]
    labels = [label for label in chosen.labels if label is not way.label]
    if way.label is not None:
        _labelled(text, project_id, way.label, part)
        _within(text, "l.task_id", part)
        if rest:
            # Not a join, which PostgreSQL might begin with the tasks.
            text.add(" AND (SELECT 1 FROM tasks t WHERE t.project_id = ? AND t.id = l.task_id", project_id)
            _matching(text, chosen, rest)
            text.add(") IS NOT NULL")
        _with_labels(text, project_id, "l.task_id", labels)
        return
    for number, values in enumerate(_branches(way, chosen)):
        # Each branch is cut by itself: PostgreSQL does not merge them in the order of their index.
        is_cut = part.limit and bool(set(way.columns) & set(MERGED))
        text.add(" UNION ALL " if number else "")
        text.add("SELECT id FROM (SELECT t.id" if is_cut else "SELECT t.id")
        text.add(f" FROM {_near(part)}tasks t{_hint(chosen, way, part)} WHERE t.project_id = ?", project_id)
        for name, value in values:
            text.add(f" AND t.{name} = ?", value)
        if chosen.execution_id is not None:
            text.add(" AND t.execution_id = ?", chosen.execution_id)
        _within(text, "t.id", part)
        _matching(text, chosen, rest)
        _with_labels(text, project_id, "t.id", labels)
        if is_cut:
            order = "t.id" if part.is_ascending else "t.id DESC"
            text.add(f" ORDER BY {order} LIMIT ?) AS branch{number}", part.offset + part.limit)


def _ranges(text: _Text, part: Part) -> None:
    if part.ranges:
        # Few lengths, so that there are few statements; an empty range holds nothing.
        length = 1 << (len(part.ranges) - 1).bit_length()
        padded = [*part.ranges, *[("", "")] * (length - len(part.ranges))]
        marks = ", ".join(["(?, ?)"] * length)
        text.add(f"WITH near(first_id, end_id) AS (VALUES {marks}) ", *(each for ends in padded for each in ends))


def _branches(way: Way, chosen: TaskFilter) -> list[list[tuple[str, Any]]]:
    """The values of the leading columns of the index, for each branch of the merge."""
    wanted = chosen.wanted
    if not set(way.columns) & set(MERGED):
        return [[(name, wanted[name]) for name in way.columns]]
    statuses = [wanted["status"]] if "status" in wanted else tables.TASK_STATUSES
    priorities = [wanted["priority"]] if "priority" in wanted else PRIORITIES
    return [[("status", status), ("priority", priority)] for status, priority in product(statuses, priorities)]


def _hint(chosen: TaskFilter, way: Way, part: Part) -> str:
    """For SQLite, which looks for ranges of ids along the primary key. `Database.text` leaves it out elsewhere."""
    if chosen.execution_id is not None:
        return " INDEXED BY tasks_by_execution"
    if not part.ranges or len(way.columns) != 1 or way.columns[0] not in INDEXED:
        return ""
    return f" INDEXED BY tasks_by_{way.columns[0].removesuffix('_id')}"


def _near(part: Part) -> str:
    return "near CROSS JOIN " if part.ranges else ""


def _labelled(text: _Text, project_id: str, label: Label, part: Part) -> None:
    key, value = label
    text.add(f"SELECT l.task_id AS id FROM {_near(part)}task_labels l")
    text.add(" WHERE l.project_id = ? AND l.key = ?", project_id, key)
    if value is not None:
        text.add(" AND l.value = ?", value)


def _within(text: _Text, identifier: str, part: Part) -> None:
    if part.begin is not None:
        text.add(f" AND {identifier} >= ?", part.begin)
    if part.end is not None:
        text.add(f" AND {identifier} < ?", part.end)
    if part.ranges:
        text.add(f" AND {identifier} >= near.first_id AND {identifier} < near.end_id")


def _matching(text: _Text, chosen: TaskFilter, names: Iterable[str]) -> None:
    for name in names:
        text.add(f" AND (t.{name} = ?) IS TRUE", chosen.wanted[name])


def _with_labels(text: _Text, project_id: str, identifier: str, labels: Iterable[Label]) -> None:
    for key, value in labels:
        # Not EXISTS: PostgreSQL might gather all tasks with the label first.
        text.add(" AND (SELECT 1 FROM task_labels x WHERE x.project_id = ? AND x.key = ?", project_id, key)
        if value is not None:
            text.add(" AND x.value = ?", value)
        text.add(f" AND x.task_id = {identifier} LIMIT 1) IS NOT NULL")

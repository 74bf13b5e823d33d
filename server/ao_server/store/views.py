"""Numbers of tasks by the values of some columns, in memory: without time, and by periods of creation.

A view is counted once from the store and then kept current by what is committed. One lock guards all of them: the
writer's thread adds to them, the event loop reads.
"""

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import repeat
from operator import attrgetter
from typing import Any, Final, NamedTuple

import msgspec

from ao_server.store import rows
from ao_server.store.filters import Label

Shape = tuple[str, ...]
Values = tuple[Any, ...]

# Into how many periods the time from the first to the last task is cut at first, and when it is cut anew.
PERIODS: Final = 1_024
MAX_PERIODS: Final = 4 * PERIODS
# Numbers that one view by periods may hold, of 4 bytes each.
MAX_NUMBERS: Final = 4_000_000
_CHUNK: Final = 64
_NOTHING: Final = array("i")


class Move(NamedTuple):
    """A task before and after one commit; `before` is None for a new one."""

    before: rows.Task | None
    after: rows.Task


class ViewKey(NamedTuple):
    """Which tasks a view counts, and by which columns."""

    project_id: str
    shape: Shape
    labels: tuple[Label, ...] = ()
    # Of this agent alone. Agents are many: by agent and period there would be as many numbers as tasks.
    agent_id: str | None = None


class Window(NamedTuple):
    """The periods that some tasks were created in, newest first; `left`: how many to pass within the first.
    `is_whole`: whether all of the tasks are in these.
    """

    periods: list[int]
    left: int
    is_whole: bool


class Counted:
    """How many tasks have which values."""

    def __init__(self, key: ViewKey) -> None:
        self._columns = [attrgetter(name) for name in key.shape]
        self._numbers: dict[Values, int] = {}

    def load(self, found: Iterable[Sequence[Any]]) -> None:
        """Takes rows of values and their number."""
        self._numbers = {tuple(values): int(number) for *values, number in found}

    def add(self, moves: Sequence[Move]) -> None:
        """Takes what was committed."""
        self._count([before for before, _ in moves if before is not None], -1)
        self._count([after for _, after in moves], 1)

    def _count(self, tasks: Sequence[rows.Task], step: int) -> None:
        # Column by column, for this runs for every move of every task.
        columns = [map(column, tasks) for column in self._columns]
        each = zip(*columns, strict=True) if columns else repeat((), len(tasks))
        for values, number in Counter(each).items():
            self._numbers[values] = self._numbers.get(values, 0) + step * number

    def total(self, values: Values) -> int:
        """How many tasks have these values."""
        return self._numbers.get(values, 0)


class Timed:
    """How many tasks of which values were created in which period: `width` microseconds from a multiple of `width`."""

    def __init__(self, key: ViewKey, oldest: int, newest: int) -> None:
        self._values_of = values_getter(key.shape)
        self._agent_id = key.agent_id
        self._is_labelled = _label_test(key.labels)
        self.width = 1_000
        while (newest - oldest) // self.width > PERIODS:
            self.width *= 2
        self._first = oldest // self.width
        self._numbers: dict[Values, array[int]] = {}
        # Whether it no longer holds, or never did: too many numbers.
        self.is_void = False

    def load(self, found: Iterable[Sequence[Any]]) -> None:
        """Takes rows of values and a text of periods, each followed by its number."""
        for *values, listed in found:
            words = listed.split()
            for period, number in zip(words[::2], words[1::2], strict=True):
                self._add(tuple(values), int(period), int(number))

    def add(self, moves: Iterable[Move]) -> None:
        """Takes what was committed."""
        for before, after in moves:
            if not self._is_labelled(after):
                continue
            period = after.created_at // self.width
            if before is not None and self._agent_id in (None, before.agent_id):
                self._add(self._values_of(before), period, -1)
            if self._agent_id in (None, after.agent_id):
                self._add(self._values_of(after), period, 1)

    def total(self, values: Values, begin: int | None = None, end: int | None = None) -> int:
        """How many tasks there are in the periods from `begin` up to, not including, `end`."""
        numbers = self._numbers.get(values)
        return 0 if numbers is None else sum(numbers[self._place(begin, 0) : self._place(end, len(numbers))])

    def window(self, values: Values, begin: int | None, end: int | None, offset: int, limit: int) -> "Window":
        """Where, from the newest on, the tasks are that come behind `offset` others, at most `limit` of them."""
        numbers = self._numbers.get(values, _NOTHING)
        first, place = self._place(begin, 0), min(self._place(end, len(numbers)), len(numbers))
        while place - _CHUNK >= first and (passed := sum(numbers[place - _CHUNK : place])) <= offset:
            offset -= passed
            place -= _CHUNK
        periods: list[int] = []
        left = offset
        while place > first and limit > 0:
            place -= 1
            number = numbers[place]
            if periods:
                limit -= number
            elif number > offset:
                left = offset
                limit -= number - offset
            else:
                offset -= number
                continue
            if number:
                periods.append(place + self._first)
        return Window(periods, left, limit <= 0)

    def _place(self, period: int | None, default: int) -> int:
        return default if period is None else max(0, period - self._first)

    def _add(self, values: Values, period: int, number: int) -> None:
        place = period - self._first
        numbers = self._numbers.get(values)
        if numbers is None:
            numbers = self._numbers[values] = array("i")
        if place >= len(numbers):
            numbers.frombytes(bytes(4 * (place + 1 - len(numbers))))
        if not 0 <= place < MAX_PERIODS or len(self._numbers) * (place + 1) > MAX_NUMBERS:
            self.is_void = True
            self._numbers.clear()
            return
        numbers[place] += number


def values_getter(shape: Shape) -> Callable[[Any], Values]:
    """Gives a row's values of some columns."""
    if not shape:
        return lambda row: ()
    if len(shape) == 1:
        only = attrgetter(shape[0])
        return lambda row: (only(row),)
    several: Callable[[Any], Values] = attrgetter(*shape)
    return several


def _label_test(labels: Sequence[Label]) -> Callable[[rows.Task], bool]:
    if not labels:
        return lambda task: True

    def is_labelled(task: rows.Task) -> bool:
        if task.labels is None:
            return False
        own: dict[str, str] = msgspec.json.decode(task.labels)
        return all(key in own and value in (None, own[key]) for key, value in labels)

    return is_labelled

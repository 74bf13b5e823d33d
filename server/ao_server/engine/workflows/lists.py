"""The items of steps that run over a list, in memory while they do: evaluated once, not once for each item."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from ao_server.engine.workflows.evaluation import Values

# Steps, and bytes of what their expressions read.
MOST_STEPS: Final = 1_000
MOST_BYTES: Final = 64 * 1024 * 1024


class StepKey(NamedTuple):
    """A step of an execution."""

    project_id: str
    execution_id: str
    place: int


@dataclass(frozen=True, slots=True)
class Listed:
    """A step's items, and which of them are to be done in this round: None for all."""

    values: Values
    items: list[Any]
    left: list[int] | None

    def indices(self, start: int, count: int) -> range | list[int]:
        """So many of those to be done."""
        return range(start, start + count) if self.left is None else self.left[start : start + count]


class Lists:
    """Those that were asked for last. What a transaction has put in counts once it is committed. The writer's thread
    owns it.
    """

    def __init__(self) -> None:
        self._lists: OrderedDict[StepKey, Listed] = OrderedDict()
        self._bytes = 0
        self._fresh: set[StepKey] = set()

    def begin(self) -> None:
        """A transaction begins: what the last one put in is forgotten if it was not committed."""
        for key in self._fresh:
            self.forget(key)
        self._fresh = set()

    def committed(self) -> None:
        """The transaction is durable."""
        self._fresh = set()

    def get(self, key: StepKey) -> Listed | None:
        """The step's items, None when they are not known here."""
        listed = self._lists.get(key)
        if listed is not None:
            self._lists.move_to_end(key)
        return listed

    def put(self, key: StepKey, listed: Listed) -> None:
        """Takes in a step's items."""
        self.forget(key)
        self._lists[key] = listed
        self._bytes += listed.values.size
        self._fresh.add(key)
        while len(self._lists) > 1 and (len(self._lists) > MOST_STEPS or self._bytes > MOST_BYTES):
            self.forget(next(iter(self._lists)))

    def forget(self, key: StepKey) -> None:
        """The step has ended."""
        listed = self._lists.pop(key, None)
        if listed is not None:
            self._bytes -= listed.values.size

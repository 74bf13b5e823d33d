"""The tasks that go first in each queue, in memory: a claim finds them without asking the store.

A head is what one look into the store found, kept in step with every commit since. It is of a queue as a whole or of
some types, and has a lane for each priority and turn, in the order of age. What stands in the store alone comes after
the last of its lane; of an empty lane that is complete, it is known that nothing waits there.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import islice
from typing import Final

from ao_server.engine.wakes import Queue, Types, Wakes, is_claimable
from ao_server.store import rows
from ao_server.store.changes import Change
from ao_server.store.selections import LANES, lane_of

# Tasks of one lane that a look takes in; twice as many may be held.
LOOKED_AT: Final = 500
# Tasks in all heads together. Beyond, the queue that was not asked for the longest is forgotten.
MOST_HELD: Final = 200_000
# Sets of types that are told apart in one queue: names come from processes.
MOST_KINDS: Final = 100


class _Lane:
    """Claimable tasks of one priority and turn, by id."""

    __slots__ = ("_is_ordered", "ids", "last")

    def __init__(self, ids: Sequence[str], is_complete: bool) -> None:
        """`ids` in order."""
        self.ids = dict.fromkeys(ids)
        # The task after which others may stand in the store; None when there are none.
        self.last = None if is_complete else ids[-1]
        self._is_ordered = True

    def add(self, task_id: str) -> None:
        if self.last is not None and task_id > self.last:
            return
        self._is_ordered = self._is_ordered and (not self.ids or task_id > next(reversed(self.ids)))
        self.ids[task_id] = None
        if len(self.ids) > 2 * LOOKED_AT:
            self.ids = dict.fromkeys(sorted(self.ids)[:LOOKED_AT])
            self.last = next(reversed(self.ids))
            self._is_ordered = True

    def first(self, count: int, gone: Collection[str], arrived: Sequence[str]) -> list[str] | None:
        """So many of the oldest or, where there are not so many, all; without those that are gone, with those that have
        arrived since the last commit. None when only the store knows.
        """
        if not self.ids and not arrived:
            return [] if self.last is None else None
        if not self._is_ordered:
            self.ids = dict.fromkeys(sorted(self.ids))
            self._is_ordered = True
        ids: Iterable[str] = self.ids
        if new := [task_id for task_id in arrived if self.last is None or task_id <= self.last]:
            ids = sorted({*self.ids, *new})
        found = list(islice((task_id for task_id in ids if task_id not in gone), count))
        return None if len(found) < count and self.last is not None else found


class QueueHeads:
    """The heads of the queues that were asked for. The writer's thread owns it."""

    def __init__(self) -> None:
        # The queue that was asked for last stands last.
        self._queues: dict[Queue, dict[Types, list[_Lane]]] = {}
        self._held = 0
        # Queues that the present transaction has looked into: what it saw counts once it is committed.
        self._looked: set[Queue] = set()

    def begin(self) -> None:
        """A transaction begins. What the last one saw is forgotten if it was not committed."""
        for queue in self._looked:
            self.forget(queue)
        self._looked = set()
        while self._held > MOST_HELD:
            self.forget(next(iter(self._queues)))

    def looked(self, queue: Queue, types: Types, found: Iterable[tuple[int, str]], limit: int) -> None:
        """A look into the store found these lanes and ids: of each lane the first, at most `limit`."""
        ids: list[list[str]] = [[] for _ in LANES]
        for lane, task_id in found:
            ids[lane].append(task_id)
        lanes = [_Lane(sorted(each), is_complete=len(each) < limit) for each in ids]
        heads = self._queues.setdefault(queue, {})
        self._held += _size(lanes) - _size(heads.pop(types, ()))
        heads[types] = lanes
        if len(heads) > MOST_KINDS:
            self._held -= _size(heads.pop(next(iter(heads))))
        self._looked.add(queue)

    def first(self, queues: Sequence[Queue], types: Types, wanted: int, oldest: int, wakes: Wakes) -> list[str] | None:
        """The first `wanted` tasks by priority, turn and age, and the `oldest` ones, in that order, as the transaction
        with these wakes leaves them. None when the store must be looked into before.
        """
        sources: list[tuple[list[_Lane], Mapping[int, list[str]]]] = []
        for queue in queues:
            lanes = self._lanes(queue, types)
            if lanes is None:
                return None
            sources.append((lanes, wakes.arrived(queue, types)))
        first: list[tuple[int, str]] = []
        aged: list[tuple[str, int]] = []
        for lane in range(len(LANES)):
            count = max(wanted - len(first), oldest)
            if not count:
                break
            found: list[str] = []
            for lanes, arrived in sources:
                ids = lanes[lane].first(count, wakes.gone, arrived.get(lane, ()))
                if ids is None:
                    return None
                found += ids
            found.sort()
            first += [(lane, task_id) for task_id in found[: wanted - len(first)]]
            aged += [(task_id, lane) for task_id in found[:oldest]]
        chosen = {*first, *((lane, task_id) for task_id, lane in sorted(aged)[:oldest])}
        return [task_id for _, task_id in sorted(chosen)]

    def observe(self, changes: Iterable[Change]) -> None:
        """The transaction was committed."""
        self._looked = set()
        for _, after in changes:
            if type(after) is not rows.Task:
                continue
            heads = self._queues.get((after.project_id, after.queue))
            if not heads:
                continue
            waits = is_claimable(after)
            for types, lanes in heads.items():
                if not waits:
                    self._remove(lanes[lane_of(after)], after.id)
                elif types is None or after.type in types:
                    self._add(lanes[lane_of(after)], after.id)

    def forget(self, queue: Queue) -> None:
        """Nobody may ever ask for it again."""
        for lanes in self._queues.pop(queue, {}).values():
            self._held -= _size(lanes)

    def __len__(self) -> int:
        """How many queues something is known of."""
        return len(self._queues)

    def _lanes(self, queue: Queue, types: Types) -> list[_Lane] | None:
        heads = self._queues.get(queue)
        if heads is None:
            return None
        self._queues[queue] = self._queues.pop(queue)
        return heads.get(types)

    def _add(self, lane: _Lane, task_id: str) -> None:
        size = len(lane.ids)
        lane.add(task_id)
        self._held += len(lane.ids) - size

    def _remove(self, lane: _Lane, task_id: str) -> None:
        if task_id in lane.ids:
            del lane.ids[task_id]
            self._held -= 1


def _size(lanes: Iterable[_Lane]) -> int:
    return sum(len(lane.ids) for lane in lanes)

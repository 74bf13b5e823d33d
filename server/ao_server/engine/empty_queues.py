"""Which queues are known to hold nothing claimable, as a whole or of some types: nobody looks there in vain."""

from collections.abc import Collection, Iterable
from typing import Final

# A queue, of an agent or of a type, within a project.
Queue = tuple[str, str]

# Beyond so many types of a queue its types are learnt anew: names come from processes.
MOST_TYPES: Final = 1_000


class EmptyQueues:
    """What was learnt from looking. Forgetting some of it costs one look and is never wrong."""

    def __init__(self) -> None:
        self._whole: set[Queue] = set()
        self._without: dict[Queue, set[str]] = {}

    def filled(self, arrivals: Iterable[tuple[Queue, str]]) -> None:
        """Tasks of these types became claimable in these queues."""
        for queue, type_ in arrivals:
            self._whole.discard(queue)
            if queue in self._without:
                self._without[queue].discard(type_)

    def may_hold(self, queue: Queue, types: Collection[str] | None) -> bool:
        """Whether the queue may hold a claimable task of these types (None: of any)."""
        if queue in self._whole:
            return False
        return types is None or not self._without.get(queue, set()).issuperset(types)

    def emptied(self, queues: Iterable[Queue], types: Collection[str] | None) -> None:
        """The queues hold no claimable task of these types (None: none at all)."""
        for queue in queues:
            if types is None:
                self._whole.add(queue)
                self._without.pop(queue, None)
                continue
            known = self._without.setdefault(queue, set())
            if len(known) > MOST_TYPES:
                known.clear()
            known.update(types)

    def forget(self, queue: Queue) -> None:
        """Nobody may ever look there again."""
        self._whole.discard(queue)
        self._without.pop(queue, None)

    def __len__(self) -> int:
        """How many queues something is known of."""
        return len(self._whole | self._without.keys())

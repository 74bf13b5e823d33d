"""What is due when, for many keys, with a single timer of the event loop."""

import asyncio
import heapq
from collections.abc import Callable
from itertools import count
from typing import Final, Generic, TypeVar

Key = TypeVar("Key")

# Entries that were cleared are swept out once they are more than the others, and more than this.
SWEEP_AT: Final = 64


class Deadlines(Generic[Key]):
    """At most one deadline for each key. Owned by the loop's thread.

    Setting and clearing one touches the loop only when it is the next: most attempts end long before their time.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._serials = count()
        self._due: dict[Key, tuple[int, Callable[[Key], None]]] = {}
        # When, serial, key; those that were cleared since are still in it.
        self._heap: list[tuple[float, int, Key]] = []
        self._timer: asyncio.TimerHandle | None = None

    def set(self, key: Key, seconds: float, action: Callable[[Key], None]) -> None:
        """Calls `action` with the key in so many seconds, in place of what was set for it before."""
        at, serial = self._loop.time() + seconds, next(self._serials)
        self._due[key] = (serial, action)
        if len(self._heap) > 2 * len(self._due) + SWEEP_AT:
            self._sweep()
        heapq.heappush(self._heap, (at, serial, key))
        if self._timer is None or at < self._timer.when():
            self._set_timer(at)

    def clear(self, key: Key) -> None:
        """Nothing is due for this key."""
        self._due.pop(key, None)

    def clear_all(self) -> None:
        """Nothing is due at all."""
        self._due.clear()
        self._heap.clear()
        self._stop_timer()

    def _sweep(self) -> None:
        self._heap = [entry for entry in self._heap if self._is_current(entry)]
        heapq.heapify(self._heap)

    def _is_current(self, entry: tuple[float, int, Key]) -> bool:
        _, serial, key = entry
        due = self._due.get(key)
        return due is not None and due[0] == serial

    def _set_timer(self, at: float) -> None:
        self._stop_timer()
        self._timer = self._loop.call_at(at, self._fire, at)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fire(self, at: float) -> None:
        self._timer = None
        # The loop calls it up to one tick of its clock too soon.
        now = max(at, self._loop.time())
        over: list[tuple[float, int, Key]] = []
        while self._heap and (self._heap[0][0] <= now or not self._is_current(self._heap[0])):
            over.append(heapq.heappop(self._heap))
        if self._heap:
            self._set_timer(self._heap[0][0])
        for entry in over:
            # What came before it in this loop may have cleared it.
            if self._is_current(entry):
                self._due.pop(entry[2])[1](entry[2])

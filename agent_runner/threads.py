"""Threads for plain functions: one for each slot, and none shared with anybody else."""

import threading
from collections import deque
from collections.abc import Callable

Work = Callable[[], None]


class Threads:
    """Runs work in up to `limit` daemon threads, started as they are needed.

    The executors of the standard library will not do: a function that never returns would hold up the end of the
    process, and their size cannot follow the agent's settings.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._limit = 0
        self._count = 0
        self._idle = 0
        self._work: deque[Work] = deque()
        self._changed = threading.Condition()

    def resize(self, limit: int) -> None:
        """Threads beyond the limit end as soon as they are idle."""
        with self._changed:
            self._limit = limit
            self._changed.notify_all()
            for _ in range(len(self._work) - self._idle):
                self._grow()

    def submit(self, work: Work) -> None:
        """Runs it as soon as a thread is free. It must not raise."""
        with self._changed:
            self._work.append(work)
            if self._idle >= len(self._work) or not self._grow():
                self._changed.notify()

    def _grow(self) -> bool:
        if self._count >= self._limit:
            return False
        self._count += 1
        threading.Thread(target=self._serve, name=f"{self._name} {self._count}", daemon=True).start()
        return True

    def _serve(self) -> None:
        while (work := self._next()) is not None:
            work()
            # What the function left alive must not wait here for the next one.
            del work

    def _next(self) -> Work | None:
        with self._changed:
            while self._count <= self._limit:
                if self._work:
                    return self._work.popleft()
                self._idle += 1
                self._changed.wait()
                self._idle -= 1
            self._count -= 1
            return None

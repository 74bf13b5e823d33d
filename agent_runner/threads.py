"""Threads for plain functions: one for each slot, and none shared with anybody else."""

import threading
from collections import deque
from collections.abc import Callable

Work = Callable[[], None]


class Threads:
    """Runs work in up to `limit` daemon threads, started as they are needed.

    The executors of the standard library will not do: a function that never returns would hold up the end of the
    process, and their size cannot follow the agent's settings.

    A thread that takes work and leaves some calls the next one before it begins. So work that blocks is not waited
    for, and a burst of short work is done by the few threads that are awake, not by one that is woken for each.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._limit = 0
        self._count = 0
        self._idle = 0
        # Whether a thread was woken, or started, that has not looked for work yet.
        self._is_one_coming = False
        self._work: deque[Work] = deque()
        self._changed = threading.Condition()

    def resize(self, limit: int) -> None:
        """Threads beyond the limit end as soon as they are idle."""
        with self._changed:
            self._limit = limit
            self._changed.notify_all()
            self._call_one()

    def submit(self, work: Work) -> None:
        """Runs it as soon as a thread is free. It must not raise."""
        with self._changed:
            self._work.append(work)
            self._call_one()

    def _call_one(self) -> None:
        """Sees to it that a thread comes for the work that waits, where one may."""
        if self._is_one_coming or not self._work:
            return
        if self._idle:
            self._changed.notify()
        elif self._count >= self._limit or not self._start_one():
            return
        self._is_one_coming = True

    def _start_one(self) -> bool:
        """Whether it could be started. RuntimeError when there is none at all that would do the work later."""
        try:
            threading.Thread(target=self._serve, name=f"{self._name} {self._count + 1}", daemon=True).start()
        except RuntimeError:
            if not self._count:
                raise
            return False
        self._count += 1
        return True

    def _serve(self) -> None:
        with self._changed:
            self._is_one_coming = False
        while (work := self._next()) is not None:
            work()
            # What the function left alive must not wait here for the next one.
            del work

    def _next(self) -> Work | None:
        with self._changed:
            while self._count <= self._limit:
                if self._work:
                    work = self._work.popleft()
                    self._call_one()
                    return work
                self._idle += 1
                self._changed.wait()
                self._idle -= 1
                self._is_one_coming = False
            self._count -= 1
            self._call_one()
            return None

"""Those who wait for a task to become final: woken by its event, one look-up per event however many wait."""

import asyncio
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import Final

from ao_server.store import rows

FINAL_EVENTS: Final = frozenset({"task_completed", "task_failed", "task_cancelled"})


class Waits:
    """Waiters by task."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[asyncio.Event]] = {}

    def publish(self, committed: Iterable[rows.Event]) -> None:
        """Hears of the events of a commit."""
        if not self._waiting:
            return
        for event in committed:
            if event.type in FINAL_EVENTS and event.task_id in self._waiting:
                for final in self._waiting[event.task_id]:
                    final.set()

    @contextmanager
    def on(self, task_id: str) -> Generator[asyncio.Event]:
        """An event that is set when the task becomes final from here on: look at the task after entering."""
        final = asyncio.Event()
        self._waiting.setdefault(task_id, set()).add(final)
        try:
            yield final
        finally:
            self._waiting[task_id].discard(final)
            if not self._waiting[task_id]:
                del self._waiting[task_id]

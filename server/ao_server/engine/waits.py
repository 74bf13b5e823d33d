"""Those who wait for a task or an execution to become final: woken by its event, one look-up per event however many
wait.
"""

import asyncio
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import Final

from ao_server.store import rows

FINAL_TASK_EVENTS: Final = frozenset({"task_completed", "task_failed", "task_cancelled"})
FINAL_EXECUTION_EVENTS: Final = frozenset({"workflow_completed", "workflow_failed", "workflow_cancelled"})


class Waits:
    """Waiters by the id of the task or execution."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[asyncio.Event]] = {}

    def publish(self, committed: Iterable[rows.Event]) -> None:
        """Hears of the events of a commit."""
        if not self._waiting:
            return
        for event in committed:
            for final in self._waiting.get(_ended(event) or "", ()):
                final.set()

    @contextmanager
    def on(self, identifier: str) -> Generator[asyncio.Event]:
        """An event that is set when it becomes final from here on: look at it after entering."""
        final = asyncio.Event()
        self._waiting.setdefault(identifier, set()).add(final)
        try:
            yield final
        finally:
            self._waiting[identifier].discard(final)
            if not self._waiting[identifier]:
                del self._waiting[identifier]


def _ended(event: rows.Event) -> str | None:
    """What has become final with this event."""
    if event.type in FINAL_TASK_EVENTS:
        return event.task_id
    return event.execution_id if event.type in FINAL_EXECUTION_EVENTS else None

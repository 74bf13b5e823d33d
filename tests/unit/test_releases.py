import asyncio
from typing import Any

import pytest

from ao_server.engine.clock import SystemClock
from ao_server.engine.releases import Releases
from ao_server.store import rows
from ao_server.store.reader import Reader


class Writes:
    """Counts what is submitted, and releases nothing."""

    def __init__(self) -> None:
        self.count = 0
        self.second = asyncio.Event()

    async def submit(self, operation: object) -> int:
        self.count += 1
        if self.count == 2:
            self.second.set()
        return 0


class Nothing:
    """Selections of a store that is never asked."""

    def ready(self, now: int, limit: int) -> None:
        return None


async def test_a_time_that_is_heard_of_while_the_store_is_read_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, writes, nothing = SystemClock(), Writes(), Nothing()
    reader: Any = nothing
    selections: Any = nothing
    writer: Any = writes
    releases = Releases(reader, selections, clock)

    async def read_before_the_commit(reader: Reader) -> None:
        backing_off = rows.Task(
            project_id="p",
            id="task_1",
            agent_id="agent_1",
            type="work",
            priority=2,
            created_at=0,
            status="pending",
            ready_at=clock.now() + 50_000,
        )
        releases.observe([(None, backing_off)])
        await asyncio.sleep(0)

    monkeypatch.setattr("ao_server.store.tasks.next_ready_at", read_before_the_commit)
    running = asyncio.create_task(releases.run(writer))
    async with asyncio.timeout(3):
        await writes.second.wait()
    running.cancel()

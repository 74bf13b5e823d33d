"""What is kept of the events of many projects."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from ao_server.engine import feed as feeds
from ao_server.engine.feed import Feed
from ao_server.store import rows


def events(project_id: str, positions: range) -> list[rows.Event]:
    return [rows.Event(project_id=project_id, position=each, type="t", timestamp=0, body="{}") for each in positions]


async def next_batch(watching: AsyncIterator[Any]) -> list[int]:
    async with asyncio.timeout(5):
        return [event.position for event in await anext(watching)]


async def test_all_projects_together_keep_to_one_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "KEPT_EVENTS", 30)
    read: list[str] = []

    async def from_store(reader: Any, project_id: str, position: int, limit: int) -> list[rows.Event]:
        read.append(project_id)
        return events(project_id, range(position + 1, position + 2))

    monkeypatch.setattr("ao_server.store.events.after", from_store)
    reader: Any = None
    feed = Feed(reader)
    names = [f"p{number}" for number in range(5)]
    for name in names:
        feed.add(rows.Feed(project_id=name, feed_id=name))
    watching = {name: aiter(feed.watch(name, 0)) for name in names}
    waiting = {name: asyncio.create_task(next_batch(watching[name])) for name in names}
    await asyncio.sleep(0)
    for name in names:
        feed.publish(events(name, range(1, 2)))
    assert {name: await task for name, task in waiting.items()} == {name: [1] for name in names}
    # One that has much happen in it takes nothing from the others.
    feed.publish(events("p0", range(2, 200)))
    for name in names[1:]:
        feed.publish(events(name, range(2, 4)))
        assert await next_batch(watching[name]) == [2, 3]
    assert read == []
    assert await next_batch(watching["p0"]) == [2] and read == ["p0"]

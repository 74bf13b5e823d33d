"""System alerts, and events that are kept for a time only."""

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import grpc
import pytest

from agent_orchestration.v1 import events_pb2, monitoring_pb2
from tests.api.conftest import Api, serving

CRITICAL, INFO = events_pb2.ALERT_SEVERITY_CRITICAL, events_pb2.ALERT_SEVERITY_INFO


async def alerts(call: Any, count: int) -> list[events_pb2.Event]:
    """The next so many alerts of a watcher."""
    found: list[events_pb2.Event] = []
    async with asyncio.timeout(20):
        while len(found) < count:
            response = await call.read()
            found += [event for event in response.events if event.HasField("system_alert")]
    return found


def watch(api: Api, **request: Any) -> Any:
    return api.monitoring.WatchEvents(monitoring_pb2.WatchEventsRequest(**request), metadata=api.admin)


async def test_a_locked_store_is_told_live_and_committed_once_it_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ao_server.store.database.LOCK_WAIT_SECONDS", 0.2)
    monkeypatch.setattr("ao_server.engine.alerts.LOOK_SECONDS", 0.05)
    async with serving(tmp_path, None) as api:
        call = watch(api, channel=events_pb2.CHANNEL_SYSTEM_EVENTS)
        start = (await call.read()).cursor
        outsider = sqlite3.connect(tmp_path / "data" / "ao.db", isolation_level=None)
        try:
            outsider.execute("BEGIN IMMEDIATE")
            (live,) = await alerts(call, 1)
        finally:
            outsider.execute("ROLLBACK")
            outsider.close()
        alert = live.system_alert
        assert (alert.code, alert.severity, live.cursor) == ("store_unavailable", CRITICAL, "")
        assert live.channel == events_pb2.CHANNEL_SYSTEM_EVENTS
        raised, cleared = await alerts(call, 2)
        assert [each.system_alert.severity for each in (raised, cleared)] == [CRITICAL, INFO]
        assert start < raised.cursor < cleared.cursor
        assert raised.system_alert.since == cleared.system_alert.since == alert.since
        call.cancel()
        later = watch(api, after=start)
        assert await alerts(later, 2) == [_without_channel(event) for event in (raised, cleared)], (
            "whoever comes later hears of both"
        )
        later.cancel()


async def test_a_disk_that_is_fuller_than_the_limit_raises_an_alert_in_every_health_and_feed(tmp_path: Path) -> None:
    async with serving(tmp_path, None, disk_alert=0.0) as api:
        call = watch(api, after=None)
        cursor = (await call.read()).cursor
        call.cancel()
        feed = watch(api, after=cursor[:-12] + "0" * 12)
        (event,) = await alerts(feed, 1)
        assert (event.system_alert.code, event.system_alert.severity) == ("disk_almost_full", CRITICAL)
        feed.cancel()


async def test_events_beyond_their_retention_are_gone_and_a_cursor_in_front_of_them_has_expired(
    tmp_path: Path, database_url: str
) -> None:
    async with serving(tmp_path, database_url, event_retention=0.4) as api:
        call = watch(api)
        old = (await call.read()).cursor
        call.cancel()
        agent_id = await api.create_agent()
        async with asyncio.timeout(20):
            while True:
                await api.create_task(agent_id)
                resumed = watch(api, after=old)
                try:
                    await resumed.read()
                except grpc.aio.AioRpcError as error:
                    assert error.code() is grpc.StatusCode.OUT_OF_RANGE
                    break
                resumed.cancel()
                await asyncio.sleep(0.1)
        call = watch(api)
        assert (await call.read()).cursor > old
        call.cancel()


def _without_channel(event: events_pb2.Event) -> events_pb2.Event:
    plain = events_pb2.Event()
    plain.CopyFrom(event)
    plain.channel = events_pb2.CHANNEL_UNSPECIFIED
    return plain

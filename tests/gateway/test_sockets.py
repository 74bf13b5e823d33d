"""The WebSocket protocol over real sockets."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import websockets
from websockets.asyncio.client import ClientConnection

from agent_orchestration.v1 import events_pb2
from ao_gateway import sockets
from tests.gateway.conftest import DEADLINE, Running

AUTH = {"type": "auth", "token": "ao_live_one"}
AGENT_EVENTS = {"type": "subscribe", "channel": "agent_events"}
TASK_EVENTS = {"type": "subscribe", "channel": "task_events"}


class Client:
    """A client that speaks JSON and never waits for ever."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    async def say(self, *messages: dict[str, Any]) -> None:
        for message in messages:
            await self.connection.send(json.dumps(message))

    async def hear(self, count: int = 1) -> list[dict[str, Any]]:
        async with asyncio.timeout(DEADLINE):
            return [json.loads(await self.connection.recv()) for _ in range(count)]

    async def cursors(self, count: int) -> list[str]:
        return [message["cursor"] for message in await self.hear(count)]

    async def close_code(self) -> int | None:
        async with asyncio.timeout(DEADLINE):
            await self.connection.wait_closed()
        return self.connection.close_code


@asynccontextmanager
async def opened(running: Running, *, authenticated: bool = True, **options: Any) -> AsyncGenerator[Client]:
    async with websockets.connect(running.ws_url, proxy=None, **options) as connection:
        client = Client(connection)
        if authenticated:
            await client.say(AUTH)
            assert await client.hear() == [{"type": "authenticated"}]
        yield client


async def subscribe(client: Client, message: dict[str, Any]) -> dict[str, Any]:
    await client.say(message)
    (answer,) = await client.hear()
    return answer


async def test_frames_are_answered_in_order(running: Running) -> None:
    async with opened(running, authenticated=False) as client:
        await client.say({"type": "ping"}, TASK_EVENTS, AUTH, AGENT_EVENTS | {"agent_id": "agent_1"}, {"type": "ping"})
        pong, error, authenticated, subscribed, again = await client.hear(5)
        assert pong == again == {"type": "pong"}
        assert error["error"]["code"] == "unauthorized"
        assert authenticated == {"type": "authenticated"}
        assert subscribed == {
            "type": "subscribed",
            "channel": "agent_events",
            "filter": {"agent_id": "agent_1"},
            "cursor": running.upstream.cursor(0),
        }


async def test_the_handshake_may_carry_the_credential(running: Running) -> None:
    async with opened(
        running, authenticated=False, additional_headers={"Authorization": "Bearer ao_live_one"}
    ) as client:
        assert await client.hear() == [{"type": "authenticated"}]


@pytest.mark.parametrize("token", ["ao_live_unknown", "", "\u00e9", "a b", "x" * 60_000])
async def test_a_bad_credential_closes(running: Running, token: str) -> None:
    async with opened(running, authenticated=False) as client:
        await client.say({"type": "auth", "token": token})
        assert await client.close_code() == 4401


async def test_no_credential_in_time_closes(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "AUTH_SECONDS", 0.05)
    async with opened(running, authenticated=False) as client:
        assert await client.close_code() == 4408


async def test_an_ended_credential_closes(running: Running) -> None:
    running.upstream.cache_seconds = 0.1
    async with opened(running) as client:
        running.upstream.revoke("ao_live_one")
        assert await client.close_code() == 4401


async def test_a_fresh_credential_takes_over_but_not_one_of_another_project(running: Running) -> None:
    running.upstream.cache_seconds = 0.1
    async with opened(running) as client:
        await client.say({"type": "auth", "token": "ao_live_other"}, {"type": "auth", "token": "ao_live_again"})
        error, authenticated = await client.hear(2)
        assert error["error"]["code"] == "forbidden"
        assert authenticated == {"type": "authenticated"}
        running.upstream.revoke("ao_live_one")
        running.upstream.revoke("ao_live_again")
        assert await client.close_code() == 4401


async def test_a_subscription_does_not_go_on_under_a_credential_that_could_not_begin_it(
    running: Running,
) -> None:
    async with opened(running) as client:
        await subscribe(client, TASK_EVENTS)
        running.upstream.scopes = ["tasks:read"]
        await client.say({"type": "auth", "token": "ao_live_again"})
        (error,) = await client.hear()
        assert error["error"]["code"] == "forbidden" and "monitoring:read" in error["error"]["message"]
        running.upstream.revoke("ao_live_one")
        assert await client.close_code() == 4401


@pytest.mark.parametrize(
    "frame",
    [
        "not json",
        "[]",
        "{}",
        '{"type": "nonsense"}',
        '{"type": "ping", "extra": 1}',
        '{"type": "subscribe"}',
        '{"type": "subscribe", "channel": "nonsense"}',
        '{"type": "subscribe", "channel": "agent_events", "agent_id": 5}',
        '{"type": "subscribe", "channel": "agent_events", "agent_id": ""}',
        '{"type": "subscribe", "channel": "agent_events", "task_id": "task_1"}',
        '{"type": "subscribe", "channel": "system_events", "agent_id": "agent_1"}',
        '{"type": "subscribe", "channel": "workflow_events", "task_id": "task_1"}',
        '{"type": "subscribe", "channel": "task_events", "execution_id": "execution_1"}',
        '{"type": "subscribe", "channel": "workflow_events", "workflow_id": ""}',
        '{"type": "unsubscribe", "channel": "workflow_events", "after": "c"}',
        '{"type": "auth", "token": 5}',
        "[" * 60_000,
        b"binary",
    ],
)
async def test_a_frame_that_is_none_is_an_error_without_effect(running: Running, frame: str | bytes) -> None:
    async with opened(running) as client:
        await client.connection.send(frame)
        await client.say({"type": "ping"})
        error, pong = await client.hear(2)
        assert error["error"]["code"] == "validation_error"
        assert pong == {"type": "pong"}


async def test_a_frame_too_large_closes(running: Running) -> None:
    async with opened(running) as client:
        await client.connection.send("x" * 65_537)
        assert await client.close_code() == 1009


async def test_text_that_is_not_utf_8_closes_and_is_no_error_of_ours(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(running) as client:
        await client.connection.send(b"\xff\xfe", text=True)
        assert await client.close_code() == 1007
    assert not [record for record in caplog.records if record.exc_info]


async def test_an_event_comes_once_through_the_first_subscription_that_carries_it(running: Running) -> None:
    async with opened(running) as client:
        for message in (AGENT_EVENTS | {"agent_id": "agent_2"}, TASK_EVENTS, AGENT_EVENTS):
            await subscribe(client, message)
        running.upstream.publish(agent_id="agent_1")
        running.upstream.publish(agent_id="agent_2")
        events = await client.hear(2)
        assert [each["channel"] for each in events] == ["task_events", "agent_events"]
        assert list(events[0]) == ["type", "channel", "cursor", "timestamp", "payload"]
        answer = await subscribe(client, {"type": "unsubscribe", "channel": "task_events"})
        assert answer == {"type": "unsubscribed", "channel": "task_events", "filter": {}}
        running.upstream.publish(agent_id="agent_1")
        assert (await client.hear())[0]["channel"] == "agent_events"


async def test_workflow_events_are_those_that_match_both_ids(running: Running) -> None:
    ids = {"workflow_id": "workflow_1", "execution_id": "execution_1"}
    async with opened(running) as client:
        answer = await subscribe(client, {"type": "subscribe", "channel": "workflow_events", **ids})
        assert answer["filter"] == ids
        for changes in ({"execution_id": "execution_2"}, {"workflow_id": "workflow_2"}, {"type": "TASK_STARTED"}):
            running.upstream.add(workflow_event(**{**ids, **changes}))
        cursor = running.upstream.add(workflow_event(**ids))
        (heard,) = await client.hear()
        assert (heard["type"], heard["channel"], heard["cursor"]) == ("workflow_started", "workflow_events", cursor)
        answer = await subscribe(client, {"type": "unsubscribe", "channel": "workflow_events", **ids})
        assert answer == {"type": "unsubscribed", "channel": "workflow_events", "filter": ids}
        running.upstream.add(workflow_event(**ids))
        await client.say({"type": "ping"})
        assert await client.hear() == [{"type": "pong"}]


def workflow_event(workflow_id: str, execution_id: str, type: str = "WORKFLOW_STARTED") -> events_pb2.Event:
    kind = events_pb2.EventType.Value(f"EVENT_TYPE_{type}")
    return events_pb2.Event(type=kind, workflow_id=workflow_id, execution_id=execution_id)


async def test_resuming_is_gapless_and_without_doubles_while_events_go_on(running: Running) -> None:
    cursors = [running.upstream.publish() for _ in range(300)]
    more = asyncio.Event()

    async def publish() -> None:
        while not more.is_set():
            cursors.append(running.upstream.publish())
            await asyncio.sleep(0)

    publishing = asyncio.create_task(publish())
    async with opened(running, max_queue=None) as first, opened(running) as second:
        await subscribe(first, TASK_EVENTS)
        answer = await subscribe(second, TASK_EVENTS | {"after": running.upstream.cursor(10)})
        assert answer["cursor"] == running.upstream.cursor(10)
        heard = await second.cursors(1000)
        more.set()
        await publishing
        last = running.upstream.publish()
        while heard[-1] != last:
            heard += await second.cursors(1)
        assert heard == [*cursors[10:], last]


async def test_a_second_subscription_replays_only_what_the_first_did_not_bring(running: Running) -> None:
    cursors = [running.upstream.publish() for _ in range(5)]
    async with opened(running) as client:
        await subscribe(client, AGENT_EVENTS)
        cursors.append(running.upstream.publish())
        heard = await client.cursors(1)
        await subscribe(client, TASK_EVENTS | {"after": running.upstream.cursor(0)})
        heard += await client.cursors(5)
        await subscribe(client, TASK_EVENTS | {"after": running.upstream.cursor(0)})
        cursors.append(running.upstream.publish())
        heard += await client.cursors(1)
        assert sorted(heard) == cursors


@pytest.mark.parametrize(
    ("after", "code"),
    [("nonsense", "cursor_invalid"), ("f1" + "f" * 12, "cursor_ahead"), ("f2" + "0" * 12, "cursor_invalid")],
)
async def test_a_cursor_that_cannot_be_used_is_an_error(running: Running, after: str, code: str) -> None:
    async with opened(running) as client:
        answer = await subscribe(client, TASK_EVENTS | {"after": after})
        assert answer["error"]["code"] == code
        running.upstream.publish()
        await client.say({"type": "ping"})
        assert await client.hear() == [{"type": "pong"}]


async def test_subscriptions_are_bounded(running: Running) -> None:
    async with opened(running) as client:
        for number in range(sockets.MAX_SUBSCRIPTIONS):
            await subscribe(client, TASK_EVENTS | {"task_id": f"task_{number}"})
        assert (await subscribe(client, TASK_EVENTS))["type"] == "error"
        assert (await subscribe(client, TASK_EVENTS | {"task_id": "task_0"}))["type"] == "subscribed"


async def test_sockets_miss_nothing_while_the_server_is_away(running: Running) -> None:
    async with opened(running) as client:
        await subscribe(client, TASK_EVENTS)
        cursors = [running.upstream.publish()]
        heard = await client.cursors(1)
        await running.upstream.stop()
        cursors += [running.upstream.publish() for _ in range(3)]
        await running.upstream.start()
        cursors.append(running.upstream.publish())
        heard += await client.cursors(4)
        assert heard == cursors


async def test_a_subscription_that_catches_up_misses_nothing_while_the_server_is_away(running: Running) -> None:
    cursors = [running.upstream.publish(size=50_000) for _ in range(200)]
    async with opened(running, max_queue=1) as client:
        answer = await subscribe(client, TASK_EVENTS | {"after": running.upstream.cursor(0)})
        assert answer["type"] == "subscribed"
        heard = await client.cursors(1)
        await running.upstream.stop()
        cursors.append(running.upstream.publish())
        await running.upstream.start()
        heard += await client.cursors(200)
        assert heard == cursors


async def test_one_stream_serves_all_sockets_of_a_project(running: Running) -> None:
    async with opened(running) as first, opened(running) as second:
        await subscribe(first, TASK_EVENTS)
        await subscribe(second, TASK_EVENTS)
        running.upstream.publish()
        assert await first.hear() == await second.hear()
        assert running.upstream.watches == [None]


async def test_an_alert_without_a_cursor_comes_at_once_to_whom_it_concerns(running: Running) -> None:
    cursors = [running.upstream.publish() for _ in range(3)]
    async with opened(running) as system, opened(running) as tasks:
        await subscribe(system, TASK_EVENTS)
        await subscribe(system, {"type": "subscribe", "channel": "system_events"})
        await subscribe(tasks, TASK_EVENTS | {"after": running.upstream.cursor(0)})
        assert await tasks.cursors(3) == cursors
        running.upstream.alert()
        (alert,) = await system.hear()
        assert list(alert) == ["type", "channel", "timestamp", "payload"]
        assert (alert["type"], alert["channel"]) == ("system_alert", "system_events")
        assert alert["payload"]["code"] == "store_unavailable"
        cursor = running.upstream.publish()
        assert await system.cursors(1) == await tasks.cursors(1) == [cursor]
        answer = await subscribe(system, AGENT_EVENTS)
        assert answer["cursor"] == cursor


async def test_an_alert_comes_once_also_while_a_subscription_catches_up(running: Running) -> None:
    for _ in range(100):
        event = events_pb2.Event(type=events_pb2.EVENT_TYPE_TASK_COMPLETED)
        event.task.progress_message = "x" * 50_000
        running.upstream.add(event)
    async with opened(running, max_queue=1) as client:
        system = {"type": "subscribe", "channel": "system_events", "after": running.upstream.cursor(0)}
        assert (await subscribe(client, system))["type"] == "subscribed"
        # That which all share, and its own.
        await running.upstream.until_watched(2)
        running.upstream.alert()
        last = running.upstream.add(events_pb2.Event(type=events_pb2.EVENT_TYPE_TASK_COMPLETED))
        heard = await client.hear(1)
        while heard[-1].get("cursor") != last:
            heard += await client.hear(1)
        assert [each["type"] for each in heard].count("system_alert") == 1
        assert len(heard) == 102


@pytest.mark.parametrize(
    "kind",
    [
        "agent_created",
        "agent_updated",
        "agent_deleted",
        "agent_status_change",
        "task_cancel_requested",
        "task_requeued",
    ],
)
async def test_every_type_of_event_has_its_payload(running: Running, kind: str) -> None:
    event = events_pb2.Event(type=events_pb2.EventType.Value(f"EVENT_TYPE_{kind.upper()}"), agent_id="agent_1")
    if kind.startswith("agent"):
        event.agent_status_change.agent_id = "agent_1"
    else:
        event.task_id = event.task.id = "task_1"
        event.task.cancel_requested_at.FromJsonString("2024-01-01T00:00:00Z")
    async with opened(running) as client:
        await subscribe(client, AGENT_EVENTS | {"agent_id": "agent_1"})
        running.upstream.add(event)
        (heard,) = await client.hear()
        assert heard["type"] == kind
        if kind.startswith("agent"):
            assert heard["payload"].keys() == {"agent_id", "name", "type", "status", "previous_status"}
        else:
            assert heard["payload"]["cancel_requested_at"] == "2024-01-01T00:00:00Z"


async def test_another_store_ends_the_sockets(running: Running) -> None:
    async with opened(running) as client:
        await subscribe(client, TASK_EVENTS)
        await running.upstream.stop()
        running.upstream.feed_id = "f2"
        await running.upstream.start()
        assert await client.close_code() == 1012


async def test_a_reader_that_stops_is_cut_off_with_a_cursor_and_others_are_not(running: Running) -> None:
    async with opened(running) as healthy, opened(running, max_queue=1) as stalled:
        for client in (healthy, stalled):
            await subscribe(client, TASK_EVENTS)
        stalled.connection.transport.pause_reading()
        sent: list[str] = []
        for _ in range(400):
            sent += [running.upstream.publish(size=20_000) for _ in range(2)]
            assert await healthy.cursors(2) == sent[-2:]
        stalled.connection.transport.resume_reading()
        heard: list[str] = []
        with pytest.raises(websockets.ConnectionClosed) as closed:
            while True:
                heard += await stalled.cursors(1)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4008
        assert heard == sent[: len(heard)]
        assert closed.value.rcvd.reason == heard[-1]


async def test_a_stop_tells_the_sockets_to_come_back(running: Running) -> None:
    async with opened(running) as client:
        running.server.stop()
        assert await client.close_code() == 1012

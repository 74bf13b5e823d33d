"""Events over plain HTTP: Server-Sent Events over real sockets."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest

from agent_orchestration.v1 import events_pb2
from ao_gateway import event_stream, event_streams
from tests.gateway.conftest import DEADLINE, Running
from tests.gateway.scripted import ScriptedServer


@dataclass
class Block:
    """What stands between two empty lines of a stream."""

    lines: list[tuple[str, str]]

    def __getitem__(self, name: str) -> str | None:
        values = [value for key, value in self.lines if key == name]
        return "\n".join(values) if values else None

    @property
    def data(self) -> dict[str, Any]:
        return json.loads(self["data"] or "null")


class Reader:
    """Reads a stream as the HTML standard says."""

    def __init__(self, response: httpx2.Response) -> None:
        self.response = response
        self._blocks = self._read()

    async def block(self) -> Block:
        async with asyncio.timeout(DEADLINE):
            return await anext(self._blocks)

    async def events(self, count: int) -> list[Block]:
        found: list[Block] = []
        while len(found) < count:
            block = await self.block()
            if block["data"] is not None:
                found.append(block)
        return found

    async def _read(self) -> AsyncIterator[Block]:
        lines: list[tuple[str, str]] = []
        async for line in self.response.aiter_lines():
            if line:
                name, _, value = line.partition(":")
                lines.append((name, value.removeprefix(" ")))
            else:
                yield Block(lines)
                lines = []


@asynccontextmanager
async def watching(client: httpx2.AsyncClient, query: str = "", **headers: str) -> AsyncGenerator[Reader]:
    async with client.stream("GET", f"/events?{query}", headers=headers) as response:
        assert response.status_code == 200, await response.aread()
        reader = Reader(response)
        first = await reader.block()
        assert first["retry"] == "1000"
        yield reader


async def test_events_come_as_they_happen_each_with_the_frame_of_a_socket(
    client: httpx2.AsyncClient, running: Running
) -> None:
    async with client.stream("GET", "/events?channel=task_events&task_id=task_1") as response:
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["x-accel-buffering"] == "no"
        assert response.headers["x-request-id"].startswith("req_")
        reader = Reader(response)
        first = await reader.block()
        assert (first["id"], first["event"], first["data"]) == (running.upstream.cursor(0), None, None)
        cursors = [running.upstream.publish() for _ in range(120)]
        heard = await reader.events(120)
        assert [each["id"] for each in heard] == cursors
        assert {each["event"] for each in heard} == {"task_progress"}
        assert [each.data["cursor"] for each in heard] == cursors
        assert list(heard[0].data) == ["type", "channel", "cursor", "timestamp", "payload"]
        assert (heard[0].data["channel"], heard[0].data["payload"]["id"]) == ("task_events", "task_1")
    (request,) = running.upstream.watch_requests
    assert (request.channel, request.task_id) == (events_pb2.CHANNEL_TASK_EVENTS, "task_1")


async def test_workflow_events_are_asked_for_by_both_ids_and_hold_execution_and_step(
    client: httpx2.AsyncClient, running: Running
) -> None:
    event = events_pb2.Event(type=events_pb2.EVENT_TYPE_WORKFLOW_STEP_COMPLETED, execution_id="execution_1")
    event.workflow_change.execution.id = "execution_1"
    event.workflow_change.step.id = "extract"
    async with watching(client, "channel=workflow_events&workflow_id=workflow_1&execution_id=execution_1") as reader:
        running.upstream.add(event)
        (heard,) = await reader.events(1)
        assert (heard["event"], heard.data["channel"]) == ("workflow_step_completed", "workflow_events")
        payload = heard.data["payload"]
        assert (payload["execution"]["id"], payload["step"]["id"]) == ("execution_1", "extract")
    (request,) = running.upstream.watch_requests
    asked = (request.channel, request.workflow_id, request.execution_id)
    assert asked == (events_pb2.CHANNEL_WORKFLOW_EVENTS, "workflow_1", "execution_1")


async def test_without_a_channel_everything_comes_and_no_channel_is_named(
    client: httpx2.AsyncClient, running: Running
) -> None:
    async with watching(client) as reader:
        running.upstream.publish()
        (event,) = await reader.events(1)
        assert "channel" not in event.data


async def test_a_stream_resumes_behind_a_cursor_and_the_header_wins(
    client: httpx2.AsyncClient, running: Running
) -> None:
    cursors = [running.upstream.publish() for _ in range(5)]
    async with watching(client, f"after={cursors[0]}") as reader:
        assert [each["id"] for each in await reader.events(4)] == cursors[1:]
    async with watching(client, f"after={cursors[0]}", **{"Last-Event-ID": cursors[3]}) as reader:
        assert [each["id"] for each in await reader.events(1)] == cursors[4:]
    async with watching(client, f"after={cursors[2]}", **{"Last-Event-ID": ""}) as reader:
        assert [each["id"] for each in await reader.events(2)] == cursors[3:]


async def test_free_json_with_line_ends_arrives_as_the_same_json(client: httpx2.AsyncClient, running: Running) -> None:
    event = events_pb2.Event(type=events_pb2.EVENT_TYPE_TASK_COMPLETED)
    event.task.result = '{\r\n"a":\r1.0,\n\n "b": "\\r\\n"}'
    async with watching(client) as reader:
        running.upstream.add(event)
        (heard,) = await reader.events(1)
        assert heard.data["payload"]["result"] == {"a": 1.0, "b": "\r\n"}


async def test_an_alert_without_a_cursor_has_no_id(client: httpx2.AsyncClient, running: Running) -> None:
    async with watching(client) as reader:
        running.upstream.alert()
        (alert,) = await reader.events(1)
        assert (alert["id"], alert["event"]) == (None, "system_alert")
        assert list(alert.data) == ["type", "timestamp", "payload"]
        cursor = running.upstream.publish()
        (event,) = await reader.events(1)
        assert event["id"] == cursor


@pytest.mark.parametrize(
    ("query", "headers", "code", "field"),
    [
        ("after=nonsense", {}, "cursor_invalid", None),
        ("after=f1" + "f" * 12, {}, "cursor_ahead", None),
        ("", {"Last-Event-ID": "nonsense"}, "cursor_invalid", None),
        ("", {"Last-Event-ID": "\u00e9"}, "cursor_invalid", None),
        ("channel=nonsense", {}, "validation_error", "channel"),
        ("channel=", {}, "validation_error", "channel"),
        ("filters=x", {}, "validation_error", "filters"),
        ("channel=task_events&channel=task_events", {}, "validation_error", "channel"),
        ("Last-Event-ID=x", {}, "validation_error", "Last-Event-ID"),
    ],
)
async def test_what_cannot_be_streamed_is_refused_before_the_stream_begins(
    client: httpx2.AsyncClient, query: str, headers: dict[str, str], code: str, field: str | None
) -> None:
    encoded = {name: value.encode() for name, value in headers.items()}
    response = await client.get(f"/events?{query}", headers=encoded)  # pyright: ignore[reportArgumentType] - bytes too
    assert (response.status_code, response.json()["error"]["code"]) == (400, code)
    assert [each["field"] for each in response.json()["error"]["details"]] == ([field] if field else [])


async def test_a_stream_needs_a_credential_and_ends_with_it(client: httpx2.AsyncClient, running: Running) -> None:
    async with httpx2.AsyncClient(base_url=running.url, trust_env=False) as stranger:
        assert (await stranger.get("/events")).status_code == 401
    async with watching(client) as reader:
        running.upstream.revoke("ao_live_one")
        (last,) = await reader.events(1)
        assert (last["event"], last.data["error"]["code"]) == ("error", "unauthorized")
    await soon(running.upstream.until_watched(0))


async def test_head_answers_at_once_without_a_body(client: httpx2.AsyncClient, running: Running) -> None:
    response = await client.head("/events")
    assert (response.status_code, response.content) == (200, b"")
    assert response.headers["content-type"].startswith("text/event-stream")
    assert (await client.head("/events?after=nonsense")).status_code == 400
    assert (await client.post("/events")).headers["allow"] == "GET, HEAD"
    await soon(running.upstream.until_watched(0))


async def test_a_client_that_leaves_ends_its_call_at_the_server(client: httpx2.AsyncClient, running: Running) -> None:
    for _ in range(20):
        async with watching(client):
            await soon(running.upstream.until_watched(1))
        await soon(running.upstream.until_watched(0))


async def test_a_stream_that_does_not_begin_is_given_up_whoever_ends_it(
    client: httpx2.AsyncClient, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    running.upstream.answers_watches.clear()
    left = asyncio.create_task(client.get("/events"))
    await soon(running.upstream.until_watched(1))
    left.cancel()
    await soon(running.upstream.until_watched(0))
    stopped = asyncio.create_task(client.get("/events"))
    await soon(running.upstream.until_watched(1))
    running.gateway.stop()
    assert (await stopped).json()["error"]["message"] == "The gateway is stopping"
    assert (await client.get("/events")).status_code == 503


async def test_a_server_that_does_not_begin_a_stream_in_time_is_unavailable(
    client: httpx2.AsyncClient, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "FIRST_ANSWER_SECONDS", 0.1)
    running.upstream.answers_watches.clear()
    assert (await client.get("/events")).status_code == 503
    await soon(running.upstream.until_watched(0))


async def test_a_client_that_has_asked_for_more_is_seen_leaving_too(running: Running) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    head = b" HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ao_live_one\r\n\r\n"
    writer.write(b"GET /v1/events" + head + b"GET /v1/agents/x" + head + b"GET /v1/agents")
    await soon(reader.readuntil(b"retry:"))
    await soon(running.upstream.until_watched(1))
    writer.write(b"x" * 1_000_000)
    await writer.drain()
    writer.close()
    await soon(running.upstream.until_watched(0))


async def test_a_quiet_stream_says_that_it_lives(
    client: httpx2.AsyncClient, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "COMMENT_SECONDS", 0.02)
    async with watching(client) as reader:
        for _ in range(3):
            block = await reader.block()
            assert [name for name, _ in block.lines] == [""]


async def test_a_lost_server_ends_the_stream_with_the_cursor(client: httpx2.AsyncClient, running: Running) -> None:
    async with watching(client) as reader:
        cursor = running.upstream.publish()
        await reader.events(1)
        await running.upstream.stop()
        (last,) = await reader.events(1)
        assert (last["event"], last["id"]) == ("error", None)
        assert last.data["error"].keys() == {"code", "message", "details", "request_id"}
        assert (last.data["error"]["code"], last.data["cursor"]) == ("unavailable", cursor)
        with pytest.raises(StopAsyncIteration):
            await reader.block()
    response = await client.get("/events")
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")


async def test_a_stop_ends_the_stream_with_the_cursor(client: httpx2.AsyncClient, running: Running) -> None:
    async with watching(client) as reader:
        running.server.stop()
        (last,) = await reader.events(1)
        assert last.data["cursor"] == running.upstream.cursor(0)


async def test_streams_are_bounded(
    client: httpx2.AsyncClient, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_streams, "MAX_STREAMS", 2)
    async with watching(client), watching(client):
        assert (await client.get("/events")).status_code == 503
        assert (await client.get("/agents/x")).status_code == 200

    async def room() -> None:
        status = 503
        while status == 503:
            status = (await client.head("/events")).status_code
        assert status == 200

    await soon(room())


@asynccontextmanager
async def stalled(running: Running) -> AsyncGenerator[None]:
    """A client that asks for events and reads no further than the headers."""
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port, limit=1024)
    writer.write(b"GET /v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ao_live_one\r\n\r\n")
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
    try:
        yield
    finally:
        writer.close()


async def test_a_reader_that_takes_nothing_slows_the_server_and_is_cut_off(
    running: Running, client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "COMMENT_SECONDS", 0.1)
    monkeypatch.setattr(event_stream, "STALLED_SECONDS", 0.2)
    async with watching(client) as healthy, stalled(running):
        cursors = [running.upstream.publish(size=20_000) for _ in range(1_000)]
        assert [each["id"] for each in await healthy.events(1_000)] == cursors
        await soon(running.upstream.until_watched(1))
    await soon(running.upstream.until_watched(0))


async def test_when_too_much_is_held_the_slowest_readers_are_cut_off(
    running: Running, client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with watching(client) as healthy, stalled(running), stalled(running), stalled(running):
        cursors = [running.upstream.publish(size=20_000) for _ in range(500)]
        heard = await healthy.events(500)
        monkeypatch.setattr(event_stream, "MAX_HELD_BYTES", 2_500_000)
        cursors += [running.upstream.publish(size=20_000) for _ in range(500)]
        heard += await healthy.events(500)
        assert [each["id"] for each in heard] == cursors
        await soon(running.upstream.until_watched(2))
    await soon(running.upstream.until_watched(0))


async def test_a_stalled_reader_does_not_hold_up_a_stop(upstream: ScriptedServer, running: Running) -> None:
    async with stalled(running):
        for _ in range(1_000):
            running.upstream.publish(size=20_000)
        running.server.stop()
        await soon(upstream.until_watched(0))


async def soon(waiting: Any) -> None:
    async with asyncio.timeout(DEADLINE):
        await waiting

"""What clients may write into a WebSocket, and anything else: an answer to each frame, and no harm to other sockets."""

import asyncio
import base64
import json
import struct
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any, Final

import pytest
import websockets
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from ao_gateway import channels, messages
from ao_gateway.errors import Refusal
from ao_gateway.messages import Subscribe, Unsubscribe
from tests.fuzz.effort import fuzzed
from tests.fuzz.json_texts import bent, documents, odd_values
from tests.gateway.conftest import DEADLINE, Running, serving
from tests.gateway.scripted import ScriptedServer

KEY: Final = "ao_live_one"
IDS: Final = st.sampled_from(['"agent_1"', '"task_1"', '""', '"' + "x" * 201 + '"', "null"]) | st.text().map(json.dumps)
FRAMES: Final = documents(
    {
        "type": st.sampled_from(
            ['"auth"', '"subscribe"', '"subscribe"', '"subscribe"', '"unsubscribe"', '"ping"', '"Ping"']
        ),
        "channel": st.sampled_from([*map(json.dumps, channels.NAMES), '"unspecified"', '"AGENT_EVENTS"']),
        "agent_id": IDS,
        "task_id": IDS,
        # Cursors of the scripted server's feed, and others.
        "after": st.sampled_from(['"f1000000000000"', '"f1000000000009"', '"f2000000000000"', '""', '"x"']),
        "token": st.sampled_from([f'"{KEY}"', f'"{KEY}"', '"ao_live_none"', '"ao_live_other"', '""', '"a b"']),
    }
)
TEXTS: Final = st.one_of(
    FRAMES, FRAMES, bent(FRAMES).map(lambda frame: frame.decode(errors="ignore")), odd_values, st.text(max_size=30)
)
ANSWERS: Final = {"authenticated", "subscribed", "unsubscribed", "pong", "error"}


@fuzzed(0.14)
@given(TEXTS)
def test_any_text_is_a_message_or_refused(text: str) -> None:
    try:
        message = messages.read(text)
        if isinstance(message, Subscribe | Unsubscribe):
            chosen = messages.filter_of(message)
            assert chosen.channel in channels.NAMES
            assert json.loads(text)["channel"] == chosen.channel
    except Refusal as refusal:
        assert (refusal.status, refusal.code) == (400, "validation_error")
        assert json.loads(payload(messages.error(refusal)))["error"].keys() == {"code", "message"}


def payload(frame: bytes) -> bytes:
    return frame[{126: 4, 127: 10}.get(frame[1], 2) :]


@pytest.fixture
async def running() -> AsyncGenerator[Running]:
    upstream = ScriptedServer()
    await upstream.start()
    async with serving(upstream) as running:
        await running.connected()
        with capture_logs() as logged:
            yield running
        assert not [line for line in logged if line["log_level"] in ("error", "critical")]
    await upstream.stop()


@fuzzed(0.012)
@given(st.lists(TEXTS | st.binary(max_size=20), min_size=1, max_size=8))
async def test_every_frame_is_answered_once_and_in_order(running: Running, frames: list[str | bytes]) -> None:
    headers = {"Authorization": f"Bearer {KEY}"}
    async with (
        asyncio.timeout(DEADLINE),
        websockets.connect(running.ws_url, additional_headers=headers, proxy=None, close_timeout=1) as client,
    ):
        assert json.loads(await client.recv()) == {"type": "authenticated"}
        try:
            for frame in frames:
                await client.send(frame)
            await client.send('{"type":"ping"}')
            answers: list[dict[str, Any]] = [json.loads(await client.recv()) for _ in [*frames, "ping"]]
        except websockets.ConnectionClosed:
            assert client.close_code == 4401
        else:
            assert {answer["type"] for answer in answers} <= ANSWERS
            assert answers[-1] == {"type": "pong"}


@st.composite
def wire(draw: Any) -> bytes:
    """Frames as bytes of the wire: good ones, odd flags, lengths that lie, no mask."""
    sent = b""
    for _ in range(draw(st.integers(1, 4))):
        head = draw(st.sampled_from([0x81, 0x81, 0x01, 0x80, 0x82, 0x88, 0x89, 0x8A, 0x08])) | draw(
            st.sampled_from([0, 0, 0, 0, 0x40, 0x20, 0x03])
        )
        content = draw(
            st.sampled_from([b"", b"\x03\xe8", b"\x00\x01", b'{"type":"ping"}', b"\xff\xfe"]) | st.binary(max_size=9)
        )
        told = draw(st.sampled_from([len(content)] * 6 + [125, 126, 127, 0]))
        size = {126: b"\x00\x05", 127: draw(st.sampled_from([struct.pack(">Q", 2**40), struct.pack(">q", -1)]))}.get(
            told, b""
        )
        mask = draw(st.sampled_from([0x80, 0x80, 0x80, 0]))
        sent += bytes((head, mask | told)) + size + (b"\0\0\0\0" if mask else b"") + content
    return sent + draw(st.binary(max_size=3))


@fuzzed(0.006)
@given(wire())
async def test_any_bytes_end_the_connection_at_most(running: Running, sent: bytes) -> None:
    async with asyncio.timeout(DEADLINE):
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        key = base64.b64encode(b"0123456789abcdef")
        writer.write(
            b"GET /v1/ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + key + b"\r\n\r\n"
        )
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        writer.write(sent)
        writer.write_eof()
        with suppress(ConnectionResetError):
            await reader.read()
        writer.close()
        async with websockets.connect(running.ws_url, proxy=None) as other:
            await other.send('{"type":"ping"}')
            assert await other.recv() == '{"type":"pong"}'

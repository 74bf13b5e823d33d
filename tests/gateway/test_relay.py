"""Calls over the relay when the server is slow, full, away or lost."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import httpx2
import pytest
from google.rpc import status_pb2

from agent_orchestration.v1 import relay_pb2
from ao_gateway import in_flight, unary
from ao_gateway import relay as relay_module
from ao_gateway import server as server_module
from ao_gateway.errors import Refusal
from ao_gateway.relay import Relay
from ao_gateway.server import DRAIN_SECONDS
from ao_gateway.upstream import NoCredential, Upstream
from tests.gateway.conftest import DEADLINE, Running, serving, until
from tests.gateway.scripted import GATEWAY_KEY, ScriptedServer, an_agent

METHOD = "/agent_orchestration.v1.AgentService/GetAgent"
METADATA = {"authorization": "Bearer ao_live_one"}


@asynccontextmanager
async def relaying(upstream: ScriptedServer) -> AsyncGenerator[Relay]:
    channel = Upstream(upstream.address, lambda: GATEWAY_KEY)
    relay = Relay(channel)
    task = asyncio.create_task(relay.run())
    try:
        async with asyncio.timeout(DEADLINE):
            await relay.connected.wait()
        yield relay
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await channel.close()


async def call(
    relay: Relay,
    *,
    is_read: bool = True,
    is_waiting: bool = False,
    timeout: float = DEADLINE,
    message: bytes = b"",
) -> bytes:
    return await relay.call(METHOD, message, METADATA, timeout=timeout, is_read=is_read, is_waiting=is_waiting)


class Gate:
    """Answers that wait until they are let go, and say when a call has come."""

    def __init__(self, upstream: ScriptedServer) -> None:
        self.open = asyncio.Event()
        self.seen = asyncio.Queue[relay_pb2.RelayCall]()
        upstream.answer = self.answer

    async def answer(self, call: relay_pb2.RelayCall) -> bytes | status_pb2.Status:
        self.seen.put_nowait(call)
        await self.open.wait()
        return await an_agent(call)


async def test_many_calls_share_the_stream(upstream: ScriptedServer) -> None:
    async with relaying(upstream) as relay:
        answers = await asyncio.gather(*(call(relay) for _ in range(500)))
    assert len(set(answers)) == 1
    assert len({each.id for each in upstream.calls}) == 500


async def test_calls_of_one_turn_of_the_loop_go_in_one_message(upstream: ScriptedServer) -> None:
    async with relaying(upstream) as relay:
        await call(relay)
        first = asyncio.create_task(call(relay))
        await asyncio.sleep(0)
        await asyncio.gather(first, call(relay))
    assert upstream.messages[-1] == 2


async def test_beyond_the_bound_calls_are_refused_at_once(
    upstream: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_flight, "MAX_CALLS", 3)
    gate = Gate(upstream)
    async with relaying(upstream) as relay:
        held = [asyncio.create_task(call(relay)) for _ in range(3)]
        await gate.seen.get()
        with pytest.raises(Refusal, match="unavailable"):
            await call(relay)
        gate.open.set()
        await asyncio.gather(*held)
        await call(relay)


async def test_a_request_that_finds_no_room_is_kept_for_a_while(
    client: httpx2.AsyncClient, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_flight, "MAX_CALLS", 1)
    monkeypatch.setattr(unary, "FULL_SECONDS", 0.2)
    gate = Gate(running.upstream)
    held = asyncio.create_task(client.get("/agents/agent_1"))
    await gate.seen.get()
    begin = time.monotonic()
    refused = await client.get("/agents/agent_1")
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert time.monotonic() - begin >= 0.2
    kept = asyncio.create_task(client.get("/agents/agent_1"))
    await asyncio.sleep(0.05)
    gate.open.set()
    assert [(await each).status_code for each in (held, kept)] == [200, 200]


async def test_calls_that_wait_have_a_bound_of_their_own(
    upstream: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_flight, "MAX_CALLS", 1)
    monkeypatch.setattr(in_flight, "MAX_WAITING", 2)
    gate = Gate(upstream)
    async with relaying(upstream) as relay:
        waiting = [asyncio.create_task(call(relay, is_waiting=True)) for _ in range(2)]
        await gate.seen.get()
        with pytest.raises(Refusal, match="unavailable"):
            await call(relay, is_waiting=True)
        other = asyncio.create_task(call(relay))
        await gate.seen.get()
        gate.open.set()
        await asyncio.gather(*waiting, other)
        await call(relay, is_waiting=True)


async def test_the_bytes_in_flight_are_bounded_too(upstream: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_flight, "MAX_BYTES", 10)
    async with relaying(upstream) as relay:
        await call(relay, message=b"x" * 10)
        with pytest.raises(Refusal, match="unavailable"):
            await call(relay, message=b"x" * 11)


async def test_a_silent_server_costs_408_and_hears_that_nobody_waits(
    upstream: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_module, "GRACE_SECONDS", 0.05)
    gate = Gate(upstream)
    async with relaying(upstream) as relay:
        with pytest.raises(Refusal) as raised:
            await call(relay, timeout=0.05)
        assert (raised.value.status, raised.value.code) == (408, "request_timeout")
        lost = await gate.seen.get()
        gate.open.set()
        await call(relay)
    assert upstream.cancelled == [lost.id]


async def test_a_lost_read_is_sent_again_and_a_lost_write_is_not(upstream: ScriptedServer) -> None:
    gate = Gate(upstream)
    async with relaying(upstream) as relay:
        read = asyncio.create_task(call(relay, is_read=True))
        write = asyncio.create_task(call(relay, is_read=False))
        first = {(await gate.seen.get()).id, (await gate.seen.get()).id}
        await upstream.stop()
        with pytest.raises(Refusal, match="outcome is unknown") as raised:
            await write
        assert dict(raised.value.headers) == {b"retry-after": b"1"}
        with pytest.raises(Refusal, match="unavailable"):
            await call(relay)
        gate.open.set()
        await upstream.start()
        assert await read
        assert {(await gate.seen.get()).id} < first


async def test_a_server_that_holds_the_stream_and_says_nothing_is_given_up(
    upstream: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_module, "QUIET_SECONDS", 0.05)
    monkeypatch.setattr(relay_module, "DEAD_SECONDS", 0.2)
    lost = asyncio.Event()
    async with relaying(upstream) as relay:
        relay.on_lost(lost.set)
        monkeypatch.setattr(relay_module, "PROBE_METHOD", "/silence")
        upstream.is_silent = True
        async with asyncio.timeout(DEADLINE):
            await lost.wait()
            upstream.is_silent = False
            await relay.connected.wait()
        assert await call(relay)


async def test_without_a_server_everything_is_503_until_it_comes() -> None:
    upstream = ScriptedServer()
    await upstream.start()
    await upstream.stop()
    async with serving(upstream) as running, client_of(running) as client:
        response = await client.get("/agents/x")
        assert (response.status_code, response.headers["retry-after"]) == (503, "1")
        assert (await client.get("/nothing")).status_code == 404
        await upstream.start()
        await running.connected()
        assert (await client.get("/agents/x")).status_code == 200
        await upstream.stop()


async def test_a_call_that_waits_has_its_time_on_top(running: Running, client: httpx2.AsyncClient) -> None:
    assert (await client.get("/tasks/x?wait=0.5")).status_code == 200
    assert (await client.get("/tasks/x?wait=1000")).status_code == 200
    assert (await client.get("/tasks/x?wait=-5")).status_code == 200
    timeouts = [each.timeout.ToMicroseconds() / 1e6 for each in running.upstream.calls]
    assert timeouts == [pytest.approx(limit, abs=0.4) for limit in (30.5, 90, 30)]
    (refusal,) = (await client.get("/tasks/x?wait=soon")).json()["error"]["details"]
    assert refusal == {"field": "wait", "message": "must be a number"}


async def test_a_client_that_does_not_wait_any_more_ends_its_call(running: Running) -> None:
    gate = Gate(running.upstream)
    async with client_of(running) as client:
        left = asyncio.create_task(client.get("/tasks/x?wait=30"))
        seen = await gate.seen.get()
        left.cancel()
        await asyncio.gather(left, return_exceptions=True)
    async with asyncio.timeout(DEADLINE):
        async with client_of(running) as client:
            gate.open.set()
            while seen.id not in running.upstream.cancelled:
                await client.get("/tasks/x")


async def test_a_write_goes_on_when_its_client_leaves(running: Running) -> None:
    gate = Gate(running.upstream)
    async with client_of(running) as client:
        left = asyncio.create_task(client.post("/tasks", json={}))
        await gate.seen.get()
        left.cancel()
        await asyncio.gather(left, return_exceptions=True)
    await until(lambda: not running.server.server_state.connections)
    async with client_of(running) as client:
        later = asyncio.create_task(client.get("/tasks/x"))
        await gate.seen.get()
        assert running.upstream.cancelled == []
        gate.open.set()
        await later


async def test_a_stop_answers_the_calls_that_wait(running: Running, client: httpx2.AsyncClient) -> None:
    gate = Gate(running.upstream)
    waiting = asyncio.create_task(client.get("/tasks/x?wait=30"))
    seen = await gate.seen.get()
    running.server.stop()
    async with asyncio.timeout(DRAIN_SECONDS - 1):
        response = await waiting
    assert (response.status_code, response.json()["error"]["message"]) == (503, "The gateway is stopping")
    assert running.upstream.cancelled in ([], [seen.id])


async def test_a_stop_answers_what_it_cannot_wait_for(
    upstream: ScriptedServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(server_module, "DRAIN_SECONDS", 0)
    gate = Gate(upstream)
    async with serving(upstream) as running, client_of(running) as client:
        await running.connected()
        slow = asyncio.create_task(client.get("/tasks/x"))
        await gate.seen.get()
        running.server.stop()
        response = await slow
        assert (response.status_code, response.json()["error"]["code"]) == (503, "unavailable")
    assert "Traceback" not in caplog.text


async def test_the_gateways_own_key_may_come_late(upstream: ScriptedServer) -> None:
    keys: list[str] = []

    def read_key() -> str:
        if not keys:
            raise NoCredential("not yet")
        return keys[0]

    channel = Upstream(upstream.address, read_key)
    relay = Relay(channel)
    task = asyncio.create_task(relay.run())
    with pytest.raises(Refusal, match="unavailable"):
        await call(relay)
    keys.append(GATEWAY_KEY)
    async with asyncio.timeout(DEADLINE):
        await relay.connected.wait()
    assert await call(relay)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await channel.close()


def client_of(running: Running) -> httpx2.AsyncClient:
    headers = {"Authorization": "Bearer ao_live_one"}
    return httpx2.AsyncClient(base_url=running.url, headers=headers, timeout=DEADLINE, trust_env=False)

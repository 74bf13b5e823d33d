"""Calls over the relay when the server is slow, full, away or lost."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import httpx2
import pytest
from google.rpc import status_pb2

from agent_orchestration.v1 import relay_pb2
from ao_gateway import in_flight
from ao_gateway import relay as relay_module
from ao_gateway.errors import Refusal
from ao_gateway.relay import Relay
from ao_gateway.upstream import NoCredential, Upstream
from tests.gateway.conftest import DEADLINE, Running, serving
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


async def call(relay: Relay, *, is_read: bool = True, timeout: float = DEADLINE, message: bytes = b"") -> bytes:
    return await relay.call(METHOD, message, METADATA, timeout=timeout, is_read=is_read)


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

"""What reaches a runner too late, or never: nothing may begin, and nothing be said, on a lease that has run out."""

import asyncio
import signal
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

import pytest

from agent_orchestration.v1 import runners_pb2
from agent_runner.definition import Definition
from agent_runner.instance import Instance
from agent_runner.stream import Stream, StreamEnded
from agent_runner.user_loop import UserLoop
from tests.runner.peer import Peer, running

LEASE = 3.0
AGENTS = """
    import asyncio, time
    from agent_runner import Agent
    agent = Agent("Worker", "worker")

    @agent.task("wait")
    async def wait(task):
        print("began", task.id, flush=True)
        await asyncio.sleep(task.payload["seconds"])

    @agent.task("plain")
    def plain(task):
        print("began", task.id, flush=True)

    @agent.task("flood")
    def flood(task):
        print("began", task.id, flush=True)
        for _ in range(480):
            task.log.info("x" * 8000)
        while not task.cancelled:
            time.sleep(0.01)
"""


@pytest.fixture
async def peer() -> AsyncGenerator[Peer, None]:
    peer = Peer()
    await peer.start()
    yield peer
    await peer.stop()


@pytest.mark.parametrize("type_", ["wait", "plain"])
async def test_an_assignment_that_waited_past_the_lease_never_begins(peer: Peer, tmp_path: Path, type_: str) -> None:
    async with running(tmp_path, AGENTS, f"127.0.0.1:{peer.port}") as runner:
        stream = await peer.stream()
        await stream.hello(lease=LEASE)
        await stream.status(lambda status: status.number == 1)
        await runner.stop_still()
        for number in range(5):
            stream.assign(type_, '{"seconds": 60}', task_id=f"stale {number}")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(peer.stream(), LEASE + 1)
        runner.signal(signal.SIGCONT)
        again = await peer.stream()
        assert list((await again.hello(lease=LEASE)).held) == []
        again.assign("plain", task_id="fresh")
        assert await runner.line() == "began fresh"


async def test_a_stream_that_takes_nothing_is_left_while_the_lease_still_runs(tmp_path: Path) -> None:
    """The server has stopped reading: a status waits behind log lines that cannot be written."""
    peer = Peer()
    await peer.start()
    async with running(tmp_path, AGENTS, f"127.0.0.1:{peer.port}") as runner:
        stream = await peer.stream()
        await stream.hello(lease=9.0)
        stream.stop_reading()
        stream.assign("flood", task_id="flooding")
        assert await runner.line() == "began flooding"
        again = await peer.stream()
        hello = (await again.hear()).hello
        assert hello.held == [runners_pb2.Attempt(task_id="flooding", number=1)]
        assert "the lease ran out" not in runner.errors
    await peer.stop()


class StuckCall:
    """A call that welcomes with a lease of 7 s, and whose second write never ends."""

    def __init__(self) -> None:
        self._written = 0
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def __aiter__(self) -> AsyncIterator[runners_pb2.ConnectResponse]:
        welcome = runners_pb2.Welcome(agent_id="agent")
        welcome.lease.FromSeconds(7)
        yield runners_pb2.ConnectResponse(welcome=welcome)
        await self._ended

    async def write(self, message: runners_pb2.ConnectRequest) -> None:
        self._written += 1
        if self._written > 1:
            await self._ended

    def cancel(self) -> None:
        self._ended.cancel()


async def test_a_write_that_never_ends_ends_the_stream_while_the_lease_still_runs() -> None:
    definition = Definition("Worker", "worker", None, None, "{}", {})
    instance = Instance(definition, UserLoop(asyncio.get_running_loop()), lambda: None)
    instance.held.draining = True
    began = instance.now()
    with pytest.raises(StreamEnded, match="silent"):
        await asyncio.wait_for(Stream(StuckCall(), instance).run(), 20)
    assert instance.now() - began < 5.5

"""Other ways to run agents: in a loop of one's own, the file by itself, several in one process."""

import asyncio
import signal
from collections.abc import AsyncGenerator
from pathlib import Path

import grpc
import pytest

from tests.runner.peer import Peer, Runner, Stream, running, script

OWN_LOOP = """
    import asyncio
    from agent_runner import Agent
    agent = Agent("Worker", "worker")
    last = asyncio.Event()

    @agent.task("work")
    async def work(task):
        print("began", task.id, flush=True)
        if task.id == "last":
            last.set()
        await asyncio.sleep(0.5)
        return {}

    async def main():
        serving = asyncio.create_task(agent.serve(drain_timeout=10))
        await last.wait()
        serving.cancel()
        try:
            await serving
        except asyncio.CancelledError:
            print("left in good order", flush=True)

    asyncio.run(main())
"""

BY_ITSELF = """
    import time
    from agent_runner import Agent
    agent = Agent("Worker", "worker")

    @agent.task("work")
    def work(task):
        return {}

    if __name__ == "__main__":
        agent.run()
        print("after run", flush=True)
"""

TWO = """
    from agent_runner import Agent
    first, second = Agent("First", "worker"), Agent("Second", "worker")
    for agent in (first, second):
        @agent.task("who")
        async def who(task, name=agent.name):
            return {"name": name}
"""


@pytest.fixture
async def peer() -> AsyncGenerator[Peer, None]:
    peer = Peer()
    await peer.start()
    yield peer
    await peer.stop()


def address(peer: Peer) -> str:
    return f"127.0.0.1:{peer.port}"


async def leave(runner: Runner, stream: Stream) -> None:
    """Hears the drain and the goodbye."""
    assert (await stream.hear()).HasField("drain")
    assert (await stream.hear()).drain.goodbye
    stream.end()


async def test_in_a_loop_of_ones_own_a_cancel_drains(peer: Peer, tmp_path: Path) -> None:
    async with script(tmp_path, OWN_LOOP, address(peer)) as runner:
        stream = await peer.stream()
        await stream.hello()
        stream.assign("work", task_id="last")
        assert await runner.line() == "began last"
        assert (await stream.hear()).HasField("drain")
        (outcome,) = await stream.outcomes()
        assert outcome.result == "{}"
        stream.settle(outcome)
        assert (await stream.hear()).drain.goodbye
        stream.end()
        assert await runner.line() == "left in good order"
        assert await runner.ended() == 0
        assert runner.errors == ""


async def test_a_file_run_by_itself_returns_from_run_after_the_drain(peer: Peer, tmp_path: Path) -> None:
    async with script(tmp_path, BY_ITSELF, address(peer)) as runner:
        stream = await peer.stream()
        await stream.hello()
        stream.assign("work")
        stream.settle(*await stream.outcomes())
        runner.signal(signal.SIGINT)
        await leave(runner, stream)
        assert await runner.line() == "after run"
        assert await runner.ended() == 0


async def test_several_agents_in_one_process(peer: Peer, tmp_path: Path) -> None:
    async with running(tmp_path, TWO, address(peer)) as runner:
        streams = [await peer.stream(), await peer.stream()]
        hellos = [await stream.hello() for stream in streams]
        assert {hello.name for hello in hellos} == {"First", "Second"}
        assert hellos[0].instance_id != hellos[1].instance_id
        for stream, hello in zip(streams, hellos, strict=True):
            stream.assign("who")
            (outcome,) = await stream.outcomes()
            assert outcome.result == f'{{"name":"{hello.name}"}}'
            stream.settle(outcome)
        runner.signal(signal.SIGTERM)
        await asyncio.gather(*(leave(runner, stream) for stream in streams))
        assert await runner.ended() == 0


async def test_one_refused_agent_ends_the_process_and_the_others_leave_in_good_order(
    peer: Peer, tmp_path: Path
) -> None:
    async with running(tmp_path, TWO, address(peer), "--log-level", "error") as runner:
        refused, other = await peer.stream(), await peer.stream()
        # Before a welcome nothing is written: a write that meets the end of a stream hides the reason of it.
        assert (await refused.hear()).HasField("hello")
        await other.hello()
        refused.end(grpc.StatusCode.NOT_FOUND)
        await leave(runner, other)
        assert await runner.ended() == 2
        assert runner.errors == "error: NOT_FOUND: the test says so\n"

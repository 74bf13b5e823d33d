"""A real runner whose agent code does what it should not: each task ends, others do not notice, the runner lives."""

import asyncio
import json
import signal
import time
from collections.abc import AsyncGenerator
from pathlib import Path

import psutil
import pytest

from agent_orchestration.v1 import runners_pb2
from tests.runner.peer import Peer, Runner, Stream, running

AGENTS = """
    import _thread, asyncio, multiprocessing, os, signal, subprocess, sys, time
    from agent_runner import Agent
    agent = Agent("Worker", "worker", max_concurrent_tasks=60)

    @agent.task("good")
    async def good(task):
        return {"good": True}

    @agent.task("fork and exit")
    def fork_and_exit(task):
        for _ in range(20):
            if os.fork() == 0:
                os._exit(0)
            os.wait()
        return {}

    @agent.task("fork and return")
    def fork_and_return(task):
        child = os.fork()
        if child == 0:
            task.log.info("never heard")
            task.progress(50)
            return {"of": "the child"}
        os.waitpid(child, 0)
        return {}

    @agent.task("fork and raise")
    async def fork_and_raise(task):
        child = os.fork()
        if child == 0:
            raise ValueError("never heard")
        os.waitpid(child, 0)
        return {}

    @agent.task("fork and await")
    async def fork_and_await(task):
        child = os.fork()
        await asyncio.sleep(0.01)
        if child == 0:
            return {"of": "the child"}
        os.waitpid(child, 0)
        return {}

    @agent.task("subprocesses")
    def subprocesses(task):
        for _ in range(50):
            subprocess.run(["true"], check=True)
        return {}

    @agent.task("spawn pool")
    def spawn_pool(task):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            assert pool.map(abs, [-1]) == [1]
        return {}

    @agent.task("fork pool")
    def fork_pool(task):
        with multiprocessing.get_context("fork").Pool(2) as pool:
            assert pool.map(abs, [-1]) == [1]
        return {}

    @agent.task("close files")
    def close_files(task):
        os.closerange(0, 3)
        return {}

    @agent.task("print")
    async def prints(task):
        print(b"bytes")
        sys.stdout.buffer.write(b"\\xff\\n")
        return {}

    @agent.task("change folder")
    def change_folder(task):
        os.chdir("/")
        return {}

    @agent.task("isolated", isolate="process")
    def isolated(task):
        return {"folder": os.getcwd(), "pid": os.getpid(), "group": os.getpgid(0)}

    @agent.task("stop the loop")
    async def stop_the_loop(task):
        asyncio.get_event_loop().stop()
        await asyncio.sleep(0)
        return {}

    @agent.task("close the loop")
    async def close_the_loop(task):
        asyncio.get_running_loop().close()

    @agent.task("cancel everything")
    async def cancel_everything(task):
        for other in asyncio.all_tasks():
            other.cancel()
        await asyncio.sleep(60)

    @agent.task("interrupt")
    def interrupt(task):
        _thread.interrupt_main()
        time.sleep(0.05)
        return {}

    @agent.task("set handlers")
    async def set_handlers(task):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, print)
        return {}

    @agent.task("background exit")
    async def background_exit(task):
        async def leave():
            sys.exit(3)
        asyncio.create_task(leave())
        await asyncio.sleep(0.01)
        return {}

    @agent.task("fill the executor")
    async def fill_the_executor(task):
        await asyncio.gather(*(asyncio.to_thread(time.sleep, 0.01) for _ in range(100)))
        return {}

    @agent.task("recursion")
    def recursion(task):
        return recursion(task)

    @agent.task("base exception")
    async def base_exception(task):
        class Odd(BaseException):
            pass
        raise Odd("odd")

    @agent.task("block")
    async def block(task):
        print("began", task.id, flush=True)
        time.sleep(task.payload["seconds"])

    @agent.task("sleep")
    def sleep(task):
        time.sleep(1)
        return {}

    if __name__ == "__main__":
        agent.run()
"""

ENDS = {
    "fork and exit": "",
    "fork and return": "",
    "fork and raise": "",
    "fork and await": "",
    "subprocesses": "",
    "spawn pool": "",
    "fork pool": "",
    "print": "",
    "stop the loop": "",
    "close the loop": "task_error",
    "cancel everything": "task_error",
    "interrupt": "",
    "set handlers": "",
    "background exit": "",
    "fill the executor": "",
    "recursion": "task_error",
    "base exception": "task_error",
    "change folder": "",
    "close files": "",
}


@pytest.fixture
async def peer() -> AsyncGenerator[Peer, None]:
    peer = Peer()
    await peer.start()
    yield peer
    await peer.stop()


def address(peer: Peer) -> str:
    return f"127.0.0.1:{peer.port}"


async def run(stream: Stream, type_: str, payload: str = "{}") -> runners_pb2.Outcome:
    stream.assign(type_, payload)
    (outcome,) = await stream.outcomes()
    stream.settle(outcome)
    return outcome


async def leave(runner: Runner, stream: Stream) -> None:
    runner.signal(signal.SIGTERM)
    while not (await stream.hear()).drain.goodbye:
        pass
    stream.end()
    assert await runner.ended() == 0


async def test_each_ends_as_documented_and_the_runner_goes_on(peer: Peer, tmp_path: Path) -> None:
    async with running(tmp_path, AGENTS, address(peer)) as runner:
        stream = await peer.stream()
        await stream.hello(lease=3.0, limit=60)
        for type_, code in ENDS.items():
            outcome = await run(stream, type_)
            assert (type_, outcome.failure.code, outcome.failure.message if not code else "") == (type_, code, "")
            assert (await run(stream, "good")).result == '{"good":true}', type_
        assert "interrupt_main" in runner.errors
        assert "agent code has set a handler for SIGTERM" in runner.errors
        assert not stream.closed.is_set(), "one session"
        assert all(len(message.log.reports) == 0 for message in heard(stream) if "never" in str(message))
        await leave(runner, stream)


def heard(stream: Stream) -> list[runners_pb2.ConnectRequest]:
    return [stream.heard.get_nowait() for _ in range(stream.heard.qsize())]


async def test_fifty_plain_functions_run_at_a_time(peer: Peer, tmp_path: Path) -> None:
    async with running(tmp_path, AGENTS, address(peer)):
        stream = await peer.stream()
        await stream.hello(limit=50)
        began = time.monotonic()
        for number in range(50):
            stream.assign("sleep", task_id=f"task_{number}")
        ended = 0
        while ended < 50:
            outcomes = await stream.outcomes()
            stream.settle(*outcomes)
            ended += len(outcomes)
        assert time.monotonic() - began < 4


async def test_isolated_functions_start_where_the_runner_did_and_end_with_it(peer: Peer, tmp_path: Path) -> None:
    async with running(tmp_path, AGENTS, address(peer)) as runner:
        stream = await peer.stream()
        await stream.hello()
        await run(stream, "change folder")
        result = json.loads((await run(stream, "isolated")).result)
        assert result["folder"] == str(Path.cwd())
        assert result["group"] == result["pid"]
        child = psutil.Process(result["pid"])
        runner.signal(signal.SIGKILL)
        await runner.ended()
        async with asyncio.timeout(10):
            while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.02)


async def test_a_function_that_blocks_the_loop_for_ever_does_not_hold_up_the_end(peer: Peer, tmp_path: Path) -> None:
    async with running(tmp_path, AGENTS, address(peer), "--drain-timeout", "0") as runner:
        stream = await peer.stream()
        await stream.hello()
        stream.assign("block", '{"seconds": 3600}', task_id="blocks")
        assert await runner.line() == "began blocks"
        stream.cancel("blocks", runners_pb2.CANCEL_REASON_REQUESTED)
        (outcome,) = await stream.outcomes()
        assert outcome.HasField("cancelled"), "within 5 s of the cancel"
        stream.settle(outcome)
        await stream.status(lambda status: status.stuck == 1 and status.capacity == 9)
        assert "has been blocked for 2 s by the function of 'block' (blocks, attempt 1), in block (" in runner.errors
        await leave(runner, stream)

"""Real runner processes against a scripted server: what they say, what they keep, and when they give up."""

import asyncio
import ctypes
import signal
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

import grpc
import pytest

from agent_orchestration.v1 import common_pb2, runners_pb2
from tests.runner.peer import AGENT_ID, KEY, Peer, running

AGENTS = """
    import asyncio, sys, time
    from agent_runner import Agent
    agent = Agent("Worker", "worker", max_concurrent_tasks=4, environment="test")

    @agent.task("report")
    async def report(task):
        await task.progress(10, "reading")
        task.log.info("line %d", 1)
        task.log.warning("last")
        return {"payload": task.payload, "agent": task.agent_id, "attempt": task.attempt}

    @agent.task("wait")
    async def wait(task):
        print("began", task.id, flush=True)
        try:
            await asyncio.sleep(task.payload["seconds"])
        except asyncio.CancelledError:
            print("cancelled", task.id, flush=True)
            raise
        return {}

    @agent.task("block the loop")
    async def block_the_loop(task):
        print("began", task.id, flush=True)
        time.sleep(task.payload["seconds"])
        return {}

    @agent.task("plain")
    def plain(task):
        print("began", task.id, flush=True)
        while not task.cancelled:
            time.sleep(0.01)
        print("cancelled", task.id, flush=True)
        return {"after": "cancel"}

    @agent.task("background exit")
    async def background_exit(task):
        async def leave():
            sys.exit(3)
        task = asyncio.create_task(leave())
        await asyncio.sleep(0.1)
        return {}
"""


@pytest.fixture
async def peer() -> AsyncGenerator[Peer, None]:
    peer = Peer()
    await peer.start()
    yield peer
    await peer.stop()


def address(peer: Peer) -> str:
    return f"127.0.0.1:{peer.port}"


async def test_it_says_what_it_is_and_reports_before_the_outcome(peer: Peer, tmp_path: Path) -> None:
    async with running(tmp_path, AGENTS, address(peer)):
        stream = await peer.stream()
        hello = await stream.hello()
        assert stream.metadata["authorization"] == f"Bearer {KEY}"
        assert (hello.type, hello.name, hello.environment) == ("worker", "Worker", "test")
        assert hello.configuration == '{"max_concurrent_tasks": 4}'
        assert [each.name for each in hello.task_types][:2] == ["report", "wait"]
        assert (hello.HasField("agent_id"), list(hello.held), hello.protocol_version) == (False, [], 1)
        assert 0 < hello.uptime.ToMilliseconds() < 60_000
        big = 12345678901234567890123
        stream.assign("report", f'{{"big": {big}, "text": "\\u0000"}}', number=3)
        lines: list[tuple[int, str]] = []
        reports: list[tuple[float, str]] = []
        outcomes: list[runners_pb2.Outcome] = []
        while not outcomes:
            message = await stream.hear()
            lines += [(each.level, each.message) for each in message.log.reports]
            reports += [(each.progress, each.message) for each in message.progress.reports]
            outcomes += message.outcomes.outcomes
        assert lines == [(common_pb2.LOG_LEVEL_INFO, "line 1"), (common_pb2.LOG_LEVEL_WARNING, "last")]
        assert reports == [(10.0, "reading")]
        assert outcomes[0].attempt == runners_pb2.Attempt(task_id="task_1", number=3)
        expected = f'{{"payload":{{"big":{big},"text":"\\u0000"}},"agent":"{AGENT_ID}","attempt":3}}'
        assert outcomes[0].result == expected


async def test_outcomes_are_kept_and_sent_again_until_they_are_settled(peer: Peer, tmp_path: Path) -> None:
    async with running(tmp_path, AGENTS, address(peer)) as runner:
        first = await peer.stream()
        await first.hello()
        first.assign("report", task_id="done")
        first.assign("wait", '{"seconds": 60}', task_id="still running")
        assert await runner.line() == "began still running"
        (outcome,) = await first.outcomes()
        first.end(grpc.StatusCode.UNAVAILABLE)

        second = await peer.stream()
        hello = await second.hello()
        assert hello.agent_id == AGENT_ID
        assert {each.task_id for each in hello.held} == {"done", "still running"}
        assert await second.outcomes() == [outcome]
        second.settle(outcome)
        second.end(grpc.StatusCode.ABORTED)

        third = await peer.stream()
        hello = await third.hello(lease=3.0)
        assert [each.task_id for each in hello.held] == ["still running"]
        status = await third.status(lambda status: bool(status.held))
        assert (status.capacity, status.last_assign) == (10, 0)
        assert status.memory_usage > 0


async def test_code_that_blocks_the_loop_costs_neither_the_lease_nor_plain_functions(
    peer: Peer, tmp_path: Path
) -> None:
    async with running(tmp_path, AGENTS, address(peer)) as runner:
        stream = await peer.stream()
        await stream.hello(lease=3.0)
        stream.assign("block the loop", '{"seconds": 5}', task_id="blocking")
        assert await runner.line() == "began blocking"
        stream.assign("plain", task_id="beside")
        assert await runner.line() == "began beside"
        stream.cancel("beside", runners_pb2.CANCEL_REASON_REQUESTED)
        assert await runner.line() == "cancelled beside"
        (outcome,) = await stream.outcomes()
        assert outcome.HasField("cancelled")
        stream.settle(outcome)
        (outcome,) = await stream.outcomes()
        assert (outcome.attempt.task_id, outcome.result) == ("blocking", "{}")
        assert len(stream.statuses) >= 4


async def test_a_superseded_attempt_stops_and_is_never_spoken_of_again(peer: Peer, tmp_path: Path) -> None:
    async with running(tmp_path, AGENTS, address(peer)) as runner:
        stream = await peer.stream()
        await stream.hello(lease=3.0, limit=4)
        for type_, task_id in (("wait", "waiting"), ("plain", "looping")):
            stream.assign(type_, '{"seconds": 60}', task_id=task_id)
            assert await runner.line() == f"began {task_id}"
            stream.cancel(task_id, runners_pb2.CANCEL_REASON_SUPERSEDED)
            assert await runner.line() == f"cancelled {task_id}"
        stream.assign("report", task_id="later")
        (outcome,) = await stream.outcomes()
        assert outcome.attempt.task_id == "later"
        stream.settle(outcome)
        status = await stream.status(lambda status: status.last_assign == 3 and not status.held)
        assert status.capacity == 4


async def test_an_attempt_survives_a_server_that_is_away_for_longer_than_the_lease(peer: Peer, tmp_path: Path) -> None:
    async with running(tmp_path, AGENTS, address(peer)) as runner:
        stream = await peer.stream()
        await stream.hello(lease=3.0)
        stream.assign("wait", '{"seconds": 6}', task_id="patient")
        assert await runner.line() == "began patient"
        await peer.stop()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(peer.stream(), 5.0)
        await peer.start()
        stream = await peer.stream()
        assert [each.task_id for each in (await stream.hello(lease=3.0)).held] == ["patient"]
        (outcome,) = await stream.outcomes()
        assert outcome.result == "{}"


async def test_silence_ends_the_attempts_before_the_lease_does(peer: Peer, tmp_path: Path) -> None:
    async with running(tmp_path, AGENTS, address(peer)) as runner:
        stream = await peer.stream()
        await stream.hello(lease=7.0)
        stream.answers = False
        stream.assign("wait", '{"seconds": 60}', task_id="unheard")
        assert await runner.line() == "began unheard"
        # It tries another stream while there is time; that one gives no answer either.
        again = await peer.stream()
        assert [each.task_id for each in (await again.hear()).hello.held] == ["unheard"]
        assert await runner.line() == "cancelled unheard"
        third = await peer.stream()
        assert list((await third.hello()).held) == []
        assert "the lease ran out" in runner.errors


async def test_a_process_that_was_stopped_past_its_lease_reports_nothing_of_before(peer: Peer, tmp_path: Path) -> None:
    async with running(tmp_path, AGENTS, address(peer)) as runner:
        stream = await peer.stream()
        await stream.hello(lease=3.0)
        stream.assign("wait", '{"seconds": 1}', task_id="stale")
        assert await runner.line() == "began stale"
        runner.signal(signal.SIGSTOP)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(peer.stream(), 4.0)
        runner.signal(signal.SIGCONT)
        again = await peer.stream()
        assert list((await again.hello()).held) == []
        again.assign("report", task_id="fresh")
        (outcome,) = await again.outcomes()
        assert outcome.attempt.task_id == "fresh"
        assert all(not message.HasField("outcomes") for message in drained(stream.heard))


async def test_sigterm_lets_work_end_hands_back_the_rest_and_says_goodbye(peer: Peer, tmp_path: Path) -> None:
    async with running(tmp_path, AGENTS, address(peer), "--drain-timeout", "2") as runner:
        stream = await peer.stream()
        await stream.hello()
        for task_id, seconds in (("short", 1), ("long", 60)):
            stream.assign("wait", f'{{"seconds": {seconds}}}', task_id=task_id)
            assert await runner.line() == f"began {task_id}"
        runner.signal(signal.SIGTERM)
        await stream.status(lambda status: status.capacity == 0)
        assert (await stream.hear()).HasField("drain")
        stream.assign("report", task_id="too late")
        outcomes: dict[str, runners_pb2.Outcome] = {}
        while len(outcomes) < 3:
            for outcome in await stream.outcomes():
                outcomes[outcome.attempt.task_id] = outcome
                stream.settle(outcome)
        assert outcomes["short"].result == "{}"
        assert outcomes["too late"].HasField("handed_back")
        assert outcomes["long"].HasField("handed_back")
        assert (await stream.hear()).drain.goodbye
        stream.end()
        assert await runner.ended() == 0


async def test_a_second_signal_ends_it_at_once(peer: Peer, tmp_path: Path) -> None:
    async with running(tmp_path, AGENTS, address(peer)) as runner:
        stream = await peer.stream()
        await stream.hello()
        stream.assign("block the loop", '{"seconds": 60}', task_id="stubborn")
        assert await runner.line() == "began stubborn"
        runner.signal(signal.SIGINT)
        await stream.status(lambda status: status.capacity == 0)
        runner.signal(signal.SIGINT)
        assert await runner.ended() == 128 + signal.SIGINT


def thread_of_grpc(pid: int) -> int:
    threads = Path(f"/proc/{pid}/task").iterdir()
    return next(int(thread.name) for thread in threads if (thread / "comm").read_text() == "event_engine\n")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a signal be aimed at one thread of a process")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_counts_whichever_thread_takes_it(peer: Peer, tmp_path: Path, number: signal.Signals) -> None:
    """The system may give it to a thread that a library in C has started, of which Python knows nothing."""
    async with running(tmp_path, AGENTS, address(peer)) as runner:
        stream = await peer.stream()
        await stream.hello()
        assert ctypes.CDLL(None).tgkill(runner.process.pid, thread_of_grpc(runner.process.pid), number) == 0
        assert (await stream.hear()).HasField("drain")
        assert (await stream.hear()).drain.goodbye
        stream.end()
        assert await runner.ended() == 0


async def test_agent_code_that_exits_in_the_background_does_not_end_the_runner(peer: Peer, tmp_path: Path) -> None:
    async with running(tmp_path, AGENTS, address(peer)):
        stream = await peer.stream()
        await stream.hello()
        for number in range(2):
            stream.assign("background exit", task_id=f"exit {number}")
            (outcome,) = await stream.outcomes()
            assert outcome.result == "{}"
            stream.settle(outcome)


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.NOT_FOUND])
async def test_a_refusal_ends_it_with_one_line(peer: Peer, tmp_path: Path, code: grpc.StatusCode) -> None:
    async with running(tmp_path, AGENTS, address(peer), "--log-level", "error") as runner:
        # A write of the runner may meet the end of the stream and hide its reason: then the runner asks again.
        refusing = asyncio.create_task(refuse_all(peer, code))
        assert await runner.ended() == 2
        refusing.cancel()
        assert runner.errors == f"error: {code.name}: the test says so\n"


async def refuse_all(peer: Peer, code: grpc.StatusCode) -> None:
    while True:
        (await peer.stream()).end(code)


async def test_other_errors_and_a_server_that_never_answers_are_tried_again(tmp_path: Path) -> None:
    """The second connect comes after the deadline of hello."""
    connected: asyncio.Queue[None] = asyncio.Queue()

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.read(100):
            connected.put_nowait(None)
        while await reader.read(65536):
            pass
        writer.close()

    server = await asyncio.start_server(swallow, "127.0.0.1", 0)
    async with server, running(tmp_path, AGENTS, f"127.0.0.1:{server.sockets[0].getsockname()[1]}") as runner:
        for _ in range(2):
            await asyncio.wait_for(connected.get(), 30)
        assert runner.process.returncode is None
        assert "trying again: no answer to hello" in runner.errors


def drained(queue: "asyncio.Queue[runners_pb2.ConnectRequest]") -> list[runners_pb2.ConnectRequest]:
    return [queue.get_nowait() for _ in range(queue.qsize())]

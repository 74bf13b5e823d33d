"""Cancel and timeout: what the function sees, what the outcome is, when the slot comes back, and what never does."""

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import pytest

from agent_runner import Agent, Task, TaskCancelled
from agent_runner.attempts import Stop
from agent_runner.user_loop import UserLoop
from tests.runner.bench import PATIENCE, agent_with, bench


@pytest.mark.parametrize(
    ("stop", "expected"),
    [(Stop.REQUESTED, "cancelled"), (Stop.TIMEOUT, "failure"), (Stop.HANDED_BACK, "handed_back"), (Stop.DROPPED, None)],
)
@pytest.mark.parametrize("type", ["raises", "swallows", "async reports", "plain looks", "plain reports"])
async def test_the_reason_of_a_cancel_decides_the_outcome(type: str, stop: Stop, expected: str | None) -> None:
    agent = Agent("Worker", "worker")
    began = threading.Event()
    ended: list[BaseException | None] = []

    @agent.task("raises")
    async def waits(task: Task) -> None:
        began.set()
        try:
            await asyncio.sleep(60)
        except TaskCancelled as error:
            ended.append(error)
            raise

    @agent.task("swallows")
    async def swallows(task: Task) -> dict[str, str]:
        try:
            await waits(task)
        except asyncio.CancelledError:
            task.log.info("a line after the cancel does not raise")
            await asyncio.sleep(0)
        return {"partial": "result"}

    @agent.task("async reports")
    async def async_reports(task: Task) -> None:
        began.set()
        try:
            while True:
                task.log.debug("never awaits")
                await asyncio.to_thread(time.sleep, 0.001) if not task.cancelled else None
        except TaskCancelled as error:
            ended.append(error)
            await asyncio.sleep(0.001)
            raise

    @agent.task("plain looks")
    def looks(task: Task) -> dict[str, str]:
        began.set()
        while not task.cancelled:
            threading.Event().wait(0.001)
        ended.append(None)
        return {"partial": "result"}

    @agent.task("plain reports")
    def reports(task: Task) -> None:
        began.set()
        try:
            while True:
                task.progress(5)
                threading.Event().wait(0.001)
        except TaskCancelled as error:
            task.log.info("raised once only")
            ended.append(error)
            raise

    async with bench(agent) as made:
        held = made.instance.held
        attempt = made.assign(type)
        await asyncio.to_thread(began.wait, PATIENCE)
        made.cancel(attempt, stop)
        assert (attempt in held) == (stop is not Stop.DROPPED)
        assert held.capacity == (9 if stop is Stop.DROPPED else 10), "a slot is taken while its code runs"
        outcomes = await made.until(lambda: len(ended) == 1 and held.stuck == 0 and not held.is_busy)
        assert held.capacity == 10
    assert [outcome.WhichOneof("outcome") for outcome in outcomes.values()] == ([expected] if expected else [])


async def test_a_cancel_before_the_code_began_is_heard() -> None:
    async def work(task: Task) -> None:
        raise AssertionError("it was cancelled before")

    async with bench(agent_with(work)) as made:
        attempt = made.assign("work")
        made.cancel(attempt)
        assert (await made.outcomes())[attempt].HasField("cancelled")
        made.instance.held.settle([attempt])
        await made.slots_back()


async def test_an_outcome_made_before_the_cancel_counts() -> None:
    done = threading.Event()

    async with bench(agent_with(lambda task: {"made": "before"})) as made:
        attempt = made.assign("work")
        while not made.instance.outbox._ended:  # pyright: ignore[reportPrivateUsage] - before the link hears of it
            done.wait(0.001)
        made.cancel(attempt)
        assert (await made.outcomes())[attempt].result == '{"made":"before"}'


async def test_a_timeout_stops_the_code_and_says_how_long_it_was_given() -> None:
    async def work(task: Task) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            task.log.info("cleaned up: %s", task.cancelled)

    async with bench(agent_with(work)) as made:
        failure = (await made.run("work", timeout=0.05)).failure
        assert (failure.code, failure.message) == ("timeout", "the attempt took longer than its timeout of 0.05 s")
        assert not failure.not_retryable
        assert made.text == ["cleaned up: True"]
        await made.slots_back()


Stubborn = Callable[[threading.Event, threading.Event], Callable[[Task], object]]
STUBBORN: dict[str, Stubborn] = {}


def stubborn(make: Stubborn) -> None:
    STUBBORN[make.__name__] = make


@stubborn
def plain_sleep(began: threading.Event, release: threading.Event) -> Callable[[Task], object]:
    def work(task: Task) -> dict[str, str]:
        began.set()
        release.wait(PATIENCE)
        try:
            task.log.info("late")
        except TaskCancelled:
            task.log.info("later still")
            task.progress(99)
        return {"late": "result"}

    return work


@stubborn
def swallowing_coroutine(began: threading.Event, release: threading.Event) -> Callable[[Task], object]:
    async def work(task: Task) -> dict[str, str]:
        began.set()
        while not release.is_set():
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0.01)
        task.log.info("late")
        return {"late": "result"}

    return work


@pytest.mark.parametrize("kind", STUBBORN)
@pytest.mark.parametrize("reason", ["cancel", "timeout"])
async def test_code_that_does_not_stop_is_reported_and_counted_until_it_ends(kind: str, reason: str) -> None:
    began, release = threading.Event(), threading.Event()
    agent = agent_with(STUBBORN[kind](began, release))

    @agent.task("other")
    def other_work(task: Task) -> dict[str, str]:
        return {"other": "done"}

    async with bench(agent, limit=2) as made:
        held = made.instance.held
        attempt = made.assign("work", timeout=0.05 if reason == "timeout" else 3600)
        await asyncio.to_thread(began.wait, PATIENCE)
        if reason == "cancel":
            made.cancel(attempt)
        outcome = (await made.outcomes())[attempt]
        assert outcome.WhichOneof("outcome") == ("cancelled" if reason == "cancel" else "failure")
        assert "has not stopped 0.1 s after it was told to" in made.text[-1]
        held.settle([attempt])
        status = made.instance.status(1, 0)
        assert (status.stuck, status.capacity, list(status.held)) == (1, 1, [])
        other = made.assign("other", task_id="other")
        assert (await made.outcomes())[other].result == '{"other":"done"}'
        held.settle([other])

        # What the server gave out before it knew goes back.
        made.assign("other", task_id="fits")
        made.assign("other", task_id="does not fit")
        outcomes = await made.outcomes(2)
        assert {id.task_id: each.WhichOneof("outcome") for id, each in outcomes.items()} == {
            "fits": "result",
            "does not fit": "handed_back",
        }
        held.settle(outcomes)

        lines = len(made.lines)
        release.set()
        await made.slots_back()
        assert (len(made.lines), made.reports) == (lines, {}), "what comes late leaves no trace"


async def test_a_repeated_cancel_wins_no_time_and_the_lease_ends_all_patience() -> None:
    release = threading.Event()
    async with bench(agent_with(lambda task: {"released": release.wait(PATIENCE)})) as made:
        attempt = made.assign("work")
        began = time.monotonic()
        while not (outcomes := made.take()):
            made.cancel(attempt)
            await asyncio.sleep(0.01)
        assert outcomes[attempt].HasField("cancelled")
        assert time.monotonic() - began < 5
        release.set()


async def test_time_limits_of_the_functions_own_are_its_own_after_a_cancel_too() -> None:
    seen: list[str] = []

    async def work(task: Task) -> None:
        try:
            await asyncio.sleep(60)
        except TaskCancelled:
            try:
                async with asyncio.timeout(0.001):
                    await asyncio.sleep(60)
            except TimeoutError:
                seen.append("timeout")
            raise

    async with bench(agent_with(work)) as made:
        attempt = made.assign("work")
        await asyncio.sleep(0.01)
        made.cancel(attempt)
        assert (await made.outcomes())[attempt].HasField("cancelled")
    assert seen == ["timeout"]


async def test_children_of_a_group_are_cancelled_with_it() -> None:
    ended: list[str] = []

    async def part(name: str) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(name)

    async def work(task: Task) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(part("one"))
            await asyncio.gather(part("two"), part("three"))

    async with bench(agent_with(work)) as made:
        attempt = made.assign("work")
        await asyncio.sleep(0.01)
        made.cancel(attempt)
        assert (await made.outcomes())[attempt].HasField("cancelled")
        made.instance.held.settle([attempt])
        await made.slots_back()
    assert sorted(ended) == ["one", "three", "two"]


async def test_code_that_cancels_every_task_in_sight_does_not_lose_those_that_have_not_begun() -> None:
    async def work(task: Task) -> dict[str, str]:
        if task.id == "cancels":
            for other in asyncio.all_tasks():
                if other.get_name().startswith("the function of") and other is not asyncio.current_task():
                    other.cancel()
        return {"id": task.id}

    async with bench(agent_with(work)) as made:
        ids = [made.assign("work", task_id=task_id) for task_id in ("cancels", "second", "third")]
        outcomes = await made.outcomes(3)
        made.instance.held.settle(ids)
        await made.slots_back()
    assert {outcome.failure.code or outcome.result for outcome in outcomes.values()} <= {
        "task_error",
        *(f'{{"id":"{task_id}"}}' for task_id in ("cancels", "second", "third")),
    }


async def test_a_blocked_loop_is_warned_of_once_with_the_name_of_the_function(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The watch is in another thread and loop, as it is in a runner."""
    user = UserLoop(asyncio.get_running_loop())
    is_over = threading.Event()

    async def watch() -> None:
        watching = asyncio.create_task(user.watch(0.01, 0.05))
        await asyncio.to_thread(is_over.wait)
        watching.cancel()

    thread = threading.Thread(target=lambda: asyncio.run(watch()))
    thread.start()

    async def work(task: Task) -> None:
        time.sleep(0.5)  # noqa: ASYNC251 - what the test is about

    async with bench(agent_with(work)) as made:
        await made.run("work")
    is_over.set()
    await asyncio.to_thread(thread.join)
    (record,) = [each for each in caplog.records if "blocked" in each.message]
    assert "the function of 'work' (task_1, attempt 1)" in record.message
    assert "work (" in record.message
    assert "test_stopping.py:" in record.message

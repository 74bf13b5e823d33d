"""Log lines and progress: whatever is reported arrives storable, in bounded memory, with what is missing counted."""

import asyncio
import threading
from typing import Any

from agent_orchestration.v1 import common_pb2
from agent_runner import Task
from agent_runner.outbox import MAX_LINES
from agent_runner.reports import FIRST_LINES, LAST_LINES
from agent_runner.task import MAX_LINE_BYTES
from tests.runner.bench import PATIENCE, agent_with, bench

MARK = "log lines dropped"


async def test_lines_are_made_storable_whatever_is_logged() -> None:
    class Odd:
        def __str__(self) -> str:
            raise RuntimeError

    def work(task: Task) -> None:
        task.log.info("100 %")
        task.log.info("%d of %s", 1, "two")
        task.log.info("%d", "no number")
        task.log.info("%(name)s", {"name": "named"})
        task.log.debug(Odd())
        task.log.warning(b"\xff")
        task.log.error("\0\udc80\N{GRINNING FACE}")
        task.log.info("\N{GRINNING FACE}" * 2_000_000)

    async with bench(agent_with(work)) as made:
        await made.run("work")
        *short, long = made.text
    assert short == [
        "100 %",
        "1 of two",
        "%d no number",
        "named",
        "<Odd, whose text cannot be made: RuntimeError>",
        "b'\\xff'",
        "\ufffd\\udc80\N{GRINNING FACE}",
    ]
    assert len(long.encode()) <= MAX_LINE_BYTES
    assert long.endswith("... [cut, 2,000,000 characters in all]")


async def test_of_a_flood_the_first_and_the_last_lines_are_kept_and_the_rest_is_counted() -> None:
    def work(task: Task) -> None:
        for number in range(200_000):
            task.log.info("line %d", number)
        raise ValueError("at the end")

    async with bench(agent_with(work)) as made:
        await made.run("work")
        text = made.text
    assert text[:FIRST_LINES] == [f"line {number}" for number in range(FIRST_LINES)]
    assert text[FIRST_LINES].startswith(f"{200_000 - FIRST_LINES - LAST_LINES:,} {MARK}")
    last = text[FIRST_LINES + 1 :]
    assert last[:LAST_LINES] == [f"line {number}" for number in range(200_000 - LAST_LINES, 200_000)]
    assert last[-1] == "ValueError: at the end"
    assert len(text) < 10_000, "the server keeps no more"


async def test_long_lines_of_a_flood_are_bounded_in_bytes() -> None:
    def work(task: Task) -> None:
        for number in range(20_000):
            task.log.info("%d %s", number, "x" * 9_000)

    async with bench(agent_with(work)) as made:
        made.assign("work")
        held = made.instance.held
        async with asyncio.timeout(PATIENCE):
            while held.is_busy:
                held.ended(made.instance.outbox.take_ended())
                await asyncio.sleep(0.01)
        made.take()
        text = made.text
    assert sum(map(len, text)) < 10 * 1024 * 1024
    assert text[-1].startswith("19999 ")
    dropped = sum(int(line.split()[0].replace(",", "")) for line in text if MARK in line)
    assert dropped + sum(MARK not in line for line in text) == 20_000


async def test_a_full_outbox_asks_for_no_more_work_and_drops_with_a_mark() -> None:
    def work(task: Task) -> None:
        for _ in range(6_000):
            task.log.info("x")

    async with bench(agent_with(work), limit=4) as made:
        held = made.instance.held
        assert held.capacity == 4
        ids = [made.assign("work", task_id=f"task_{number}") for number in range(2)]
        async with asyncio.timeout(PATIENCE):
            while held.is_busy:
                held.ended(made.instance.outbox.take_ended())
                await asyncio.sleep(0.01)
        assert held.capacity == 2, "what is held, no more"
        assert set(made.take()) == set(ids)
        assert held.capacity == 4
        text = made.text
    marks = [line for line in text if MARK in line]
    dropped = sum(int(mark.split()[0].replace(",", "")) for mark in marks)
    assert dropped + len(text) - len(marks) == 12_000
    assert MAX_LINES <= len(text) <= MAX_LINES + 2 * LAST_LINES + 10


async def test_lines_that_had_to_wait_come_as_soon_as_there_is_room() -> None:
    full, taken = threading.Event(), threading.Event()

    def work(task: Task) -> None:
        for number in range(MAX_LINES + 5):
            task.log.info("%d", number % 1000 if number < FIRST_LINES else number)
        full.set()
        taken.wait(PATIENCE)
        raise ValueError("the end")

    async with bench(agent_with(work)) as made:
        made.assign("work")
        await asyncio.to_thread(full.wait, PATIENCE)
        made.take()
        assert len(made.lines) == FIRST_LINES
        taken.set()
        await made.outcomes()
        assert made.text[FIRST_LINES].startswith(f"{MAX_LINES + 5 - FIRST_LINES - LAST_LINES:,} {MARK}")
        assert made.text[-1] == "ValueError: the end"


async def test_progress_is_queued_at_once_and_keeps_the_last() -> None:
    async def work(task: Task) -> None:
        await task.progress(0, "m" * 5_000_000)
        task.progress(99.5)
        task.progress(100)

    async with bench(agent_with(work)) as made:
        attempt = made.assign("work")
        await made.outcomes()
        percent, message = made.reports[attempt]
    assert percent == 100
    assert message is not None
    assert message.startswith("mmm")
    assert len(message) <= 1000


async def test_a_finaliser_that_logs_within_a_log_call_does_not_hang() -> None:
    class Logs:
        def __init__(self, task: Task) -> None:
            self._task = task
            self._self = self

        def __del__(self) -> None:
            self._task.log.info("finalised")

    def work(task: Task) -> dict[str, Any]:
        for number in range(5_000):
            Logs(task)
            task.log.info("line %d", number)
        return {}

    async with bench(agent_with(work)) as made:
        assert (await made.run("work")).result == "{}"
        assert made.lines[0].level == common_pb2.LOG_LEVEL_INFO

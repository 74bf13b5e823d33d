"""An agent that keeps a journal, on disk, of every start and end of an attempt: what really ran, and when.

CLOCK_MONOTONIC is one clock for all processes of a machine, so the journals of several runners can be compared.
"""

import asyncio
import os
import time

from agent_runner import Agent, Task

JOURNAL = os.environ["JOURNAL"]

agent = Agent(name="Worker", type="worker", max_concurrent_tasks=8)


def note(what: str, task: Task) -> None:
    line = f"{what} {task.id} {task.attempt} {os.getpid()} {time.monotonic()}\n"
    descriptor = os.open(JOURNAL, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, line.encode())
    os.close(descriptor)


@agent.task("work")
async def work(task: Task) -> dict[str, object]:
    note("start", task)
    try:
        await task.progress(50, "half way")
        task.log.info("working on %s", task.payload["number"])
        await asyncio.sleep(task.payload["seconds"])
        return {"number": task.payload["number"], "attempt": task.attempt}
    finally:
        note("end", task)

"""An agent that keeps a journal, on disk, of every start and end of an attempt: what really ran, and when.

CLOCK_MONOTONIC is one clock for all processes of a machine, so the journals of several runners can be compared.
"""

import asyncio
import os
import time
from pathlib import Path

from agent_runner import Agent, NotRetryable, Task

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


@agent.task("step")
async def step(task: Task) -> dict[str, object]:
    """Of a workflow. It returns the trace it was given in `after`, and its own name behind it."""
    note("start", task)
    try:
        await asyncio.sleep(task.payload.get("seconds") or 0)
        if task.attempt <= (task.payload.get("failures") or 0):
            raise RuntimeError("not yet")
        if task.payload.get("fails_once") and is_first(str(task.payload["fails_once"]), task.id):
            raise NotRetryable("the first time")
        return {"trace": [*(task.payload.get("after") or []), task.payload["name"]]}
    finally:
        note("end", task)


@agent.task("undo")
async def undo(task: Task) -> dict[str, object]:
    note("start", task)
    note("end", task)
    return {}


def is_first(name: str, task_id: str) -> bool:
    """Whether no other task has asked for this name before. A kill leaves no half of a mark: it is a link."""
    mark = Path(f"{JOURNAL}.{name}")
    try:
        mark.symlink_to(task_id)
    except FileExistsError:
        return str(mark.readlink()) == task_id
    return True

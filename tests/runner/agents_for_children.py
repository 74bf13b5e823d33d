"""Isolated functions for the tests: imported here, and anew by the children."""

import asyncio
import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from typing import Any, cast

from agent_runner import Agent, NotRetryable, Task

# What a child that is told to stop says to the test, which has no other way to know that it has begun.
agent = Agent("Worker", "worker")


@agent.task("echo", isolate="process", description="says what it heard", schema={"type": "object"})
def echo(task: Task) -> dict[str, Any]:
    return {"payload": task.payload, "agent": [task.agent.id, task.agent.name, task.agent.configuration]}


@agent.task("where", isolate="process")
async def where(task: Task) -> dict[str, Any]:
    await task.progress(50, "half")
    task.log.info("in %s", "a child")
    return {"pid": os.getpid(), "parent": os.getppid(), "module": __name__}


@agent.task("die", isolate="process")
def die(task: Task) -> None:
    match task.payload["how"]:
        case "exit":
            print("the last word", flush=True)
            os._exit(3)
        case "segfault":
            ctypes.string_at(0)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "raise":
            raise NotRetryable("no way", code="no_way")
        case "sys.exit":
            sys.exit(4)
        case "too large":
            return {"a": "x" * (1024 * 1024)}  # pyright: ignore[reportReturnType] - what the test is about
        case _:
            os.closerange(3, 100)
            time.sleep(60)


@agent.task("wait", isolate="process")
def wait(task: Task) -> dict[str, Any]:
    task.log.info("began %d", os.getpid())
    match task.payload["how"]:
        case "looks":
            while not task.cancelled:
                time.sleep(0.001)
        case "ignores":
            time.sleep(60)
        case "ignores SIGTERM":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            task.log.info("deaf")
            time.sleep(60)
        case _:
            child = subprocess.Popen(["sleep", "60"])
            task.log.info("grandchild %d", child.pid)
            child.wait()
    return {"returned": True}


@agent.task("wait async", isolate="process")
async def wait_async(task: Task) -> None:
    task.log.info("began %d", os.getpid())
    try:
        await asyncio.sleep(60)
    finally:
        task.log.info("cleaned up")


@agent.task("print", isolate="process")
def prints(task: Task) -> None:
    sys.stdout.buffer.write(b"\xff bytes\n")
    sys.stdout.buffer.flush()
    print("to stderr", file=sys.stderr)
    sys.stdout.write("x" * 1_000_000 + "\n")
    for number in range(task.payload["lines"]):
        print("line", number)
    print("no end", end="")


@agent.task("fork", isolate="process")
def fork(task: Task) -> dict[str, Any]:
    if os.fork() == 0:
        task.log.info("never heard")
        return {"of": "the forked child"}
    os.wait()
    context = cast(Any, multiprocessing).get_context(task.payload["method"])
    with context.Pool(1) as pool:
        return {"mapped": pool.map(abs, [-1])}


@agent.task("stop loop", isolate="process")
async def stop_loop(task: Task) -> dict[str, Any]:
    asyncio.get_running_loop().stop()
    await asyncio.sleep(0.001)
    return {"stopped": False}


lonely = Agent("Lonely", "worker")


@lonely.task("only", isolate="process")
def only(task: Task) -> dict[str, Any]:
    return {"only": task.type}


if __name__ == "__main__":
    raise AssertionError("a child must not run what the main program runs")

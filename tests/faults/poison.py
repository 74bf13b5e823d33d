"""An agent with a type of task that ends its whole process, as a crash or the system's memory killer would."""

import asyncio
import os

from agent_runner import Agent, Task

agent = Agent(name="Fragile", type="fragile", max_concurrent_tasks=10)


@agent.task("good")
async def good(task: Task) -> dict[str, object]:
    await asyncio.sleep(0.02)
    return {"process": os.getpid()}


@agent.task("poison")
async def poison(task: Task) -> None:
    os._exit(7)

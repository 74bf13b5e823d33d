"""An agent whose task does nothing: what is measured is all that is around it."""

import os
from typing import Any

from agent_runner import Agent, Task

agent = Agent(name="Idle Hands", type="noop", max_concurrent_tasks=int(os.environ.get("NOOP_SLOTS", "200")))


@agent.task("noop")
async def noop(task: Task) -> dict[str, Any]:
    """Nothing."""
    return {}

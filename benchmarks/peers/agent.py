"""The no-op agent that says when a task ran."""

import os
from typing import Any

from agent_runner import Agent, Task
from benchmarks.peers.apps.stamps import Stamps

agent = Agent(name="Peer", type="noop", max_concurrent_tasks=int(os.environ["NOOP_SLOTS"]))
stamps = Stamps.shared()


@agent.task("noop")
async def noop(task: Task) -> dict[str, Any]:
    """Nothing but that. Payload: `number` of a single task."""
    if "number" in task.payload:
        stamps.ran(task.payload["number"])
    return {}

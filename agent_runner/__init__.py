"""Write an agent: register functions for task types, then run the file with `ao runner` or `agent.run()`."""

import os

from agent_runner.agent import Agent
from agent_runner.errors import NotRetryable, TaskCancelled, TaskError
from agent_runner.task import Task

__all__ = ["Agent", "NotRetryable", "Task", "TaskCancelled", "TaskError"]

# Read by grpc, which is imported later: at its usual level it prints a line each time that agent code forks.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

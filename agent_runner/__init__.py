"""Write an agent: register functions for task types, then run the file with `ao runner` or `agent.run()`."""

import os

from agent_runner.agent import Agent
from agent_runner.errors import NotRetryable, TaskCancelled, TaskError
from agent_runner.task import Task

__all__ = ["Agent", "NotRetryable", "Task", "TaskCancelled", "TaskError"]

# Read by grpc, which is imported later: at its usual level it prints a line each time that agent code forks.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
# With its fork support it starts threads anew in every process that agent code forks off, and now and then crashes
# there; such a process has no business on the runner's connection.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

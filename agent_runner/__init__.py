"""Write an agent: register functions for task types, then run the file with `ao runner` or `agent.run()`."""

from agent_runner.agent import Agent
from agent_runner.task import Task, TaskCancelled

__all__ = ["Agent", "Task", "TaskCancelled"]

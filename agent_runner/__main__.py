"""`python -m agent_runner`."""

from agent_runner.command import runner

runner()

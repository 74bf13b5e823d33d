"""`python -m agent_orchestration.cli`."""

from agent_orchestration.cli import main

main()

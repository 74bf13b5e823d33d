"""Agent Orchestration: the client side."""

from typing import Final

__version__: Final = "0.1.0"

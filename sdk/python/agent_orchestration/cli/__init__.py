"""`ao`: the command. It is imported within `main`, so that Ctrl-C is quiet from the first moment on."""

import sys
from typing import Final

INTERRUPTED: Final = 130


def main() -> None:
    """Runs the `ao` command."""
    try:
        from agent_orchestration.cli.commands import run

        sys.exit(run())
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)

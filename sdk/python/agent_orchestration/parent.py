"""The life of a child of `ao dev`: it ends when its parent does, however that happens.

The parent keeps the write end of a pipe open and hands the read end down. The end of the pipe means that the parent is
gone, also after kill -9. What was acknowledged is durable, so the child ends at once.
"""

import os
import threading
from typing import Final

PARENT_FD: Final = "AGENT_ORCHESTRATION_PARENT_FD"


def watch_parent() -> None:
    """Ends this process when the parent that started it with `PARENT_FD` ends; without that variable, does nothing."""
    given = os.environ.pop(PARENT_FD, None)
    if given is not None:
        descriptor = int(given)
        os.set_inheritable(descriptor, False)
        threading.Thread(target=_end_with, args=(descriptor,), name="parent", daemon=True).start()


def _end_with(descriptor: int) -> None:
    while os.read(descriptor, 1):
        pass
    os._exit(1)

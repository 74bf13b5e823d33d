"""SIGTERM and SIGINT for the process: the first drains, the second ends it.

They work while agent code blocks the loop.
"""

import logging
import os
import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType
from typing import Final

log = logging.getLogger("agent_runner")

NUMBERS: Final = (signal.SIGTERM, signal.SIGINT)


class Signals:
    """The handlers of the process. Only its main thread can have any."""

    def __init__(self, drain: Callable[[], None]) -> None:
        self._drain = drain
        self._is_draining = False
        self._is_main = threading.current_thread() is threading.main_thread()

    @contextmanager
    def handled(self) -> Generator[None, None, None]:
        """Handles them for as long as this lasts."""
        if not self._is_main:
            yield
            return
        before = [signal.signal(number, self._signalled) for number in NUMBERS]
        try:
            yield
        finally:
            for number, handler in zip(NUMBERS, before, strict=True):
                signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    def keep(self) -> None:
        """Puts the handlers back where agent code has set its own: the process must go on heeding signals."""
        if self._is_main:
            for number in NUMBERS:
                if signal.getsignal(number) != self._signalled:
                    signal.signal(number, self._signalled)
                    log.warning("agent code has set a handler for %s: it is the runner's again", number.name)

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        if self._is_draining:
            os._exit(128 + number)
        self._is_draining = True
        self._drain()

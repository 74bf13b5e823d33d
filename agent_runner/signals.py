"""SIGTERM and SIGINT for the process: the first drains, the second ends it.

They work while agent code blocks the loop.
"""

import _thread
import logging
import os
import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

log = logging.getLogger("agent_runner")

NUMBERS: Final = (signal.SIGTERM, signal.SIGINT)


class Signals:
    """The handlers of the process. Only its main thread can have any."""

    def __init__(self, drain: Callable[[], None]) -> None:
        self._drain = drain
        self._is_draining = False
        self._is_handling = False
        self._fork = threading.local()
        self._is_main = threading.current_thread() is threading.main_thread()

    @contextmanager
    def handled(self) -> Generator[None, None, None]:
        """Handles them for as long as this lasts."""
        if not self._is_main:
            yield
            return
        before = [signal.signal(number, self._signalled) for number in NUMBERS]
        self._is_handling = True
        os.register_at_fork(
            before=self._before_fork,
            after_in_parent=self._after_fork,
            after_in_child=self._after_fork_in_child,
        )
        try:
            yield
        finally:
            self._is_handling = False
            for number, handler in zip(NUMBERS, before, strict=True):
                signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    def keep(self) -> None:
        """Puts the handlers back where agent code has set its own: the process must go on heeding signals."""
        if self._is_main:
            for number in NUMBERS:
                if signal.getsignal(number) != self._signalled:
                    signal.signal(number, self._signalled)
                    log.warning("agent code has set a handler for %s: it is the runner's again", number.name)

    def _before_fork(self) -> None:
        # What arrives in the child before it has handlers of its own must wait for them.
        self._fork.mask = signal.pthread_sigmask(signal.SIG_BLOCK, NUMBERS)

    def _after_fork(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._fork.mask)

    def _after_fork_in_child(self) -> None:
        """Processes that agent code forks off, those of multiprocessing too, end by signals like any other."""
        if self._is_handling:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
        self._after_fork()

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        if self._is_draining:
            os._exit(128 + number)
        self._is_draining = True
        self._drain()


_simulate: Final = _thread.interrupt_main


def _interrupt_main(signum: signal.Signals = signal.SIGINT, /) -> None:
    """In place of `_thread.interrupt_main()`, with which agent code would end the process as if a signal had arrived.

    The handler cannot tell the two apart, so it must not come to that: every signal counts.
    """
    handler: Any = signal.getsignal(signum) if signum in NUMBERS else None
    if isinstance(getattr(handler, "__self__", None), Signals):
        log.warning("agent code called interrupt_main(), which interrupts no function here: ignored")
        return
    _simulate(signum)


_thread.interrupt_main = _interrupt_main

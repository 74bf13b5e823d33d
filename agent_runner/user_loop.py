"""The event loop in which agent code runs, and a watch over it from outside."""

import asyncio
import contextvars
import logging
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, Final, Protocol

from agent_runner import aftermath

log = logging.getLogger("agent_runner")

BEAT_SECONDS: Final = 1.0
BLOCKED_SECONDS: Final = 2.0
_OWN_FOLDER: Final = str(Path(__file__).parent)


class Beginning(Protocol):
    """What begins in the loop."""

    def begin(self) -> None:
        """Makes an asyncio task of it."""
        ...

    def look(self) -> None:
        """Called once the first step of the asyncio task is over, if it had one."""
        ...


class UserLoop:
    """Where agent code runs: the event loop that serves, and the context variables that were set there."""

    def __init__(self, loop: asyncio.AbstractEventLoop, after_turn: Callable[[], None] = lambda: None) -> None:
        """Called in the loop's thread. `after_turn` is called there after turns in which async functions ended."""
        self.loop = loop
        self.thread = threading.get_ident()
        self._context = contextvars.copy_context()
        self._after_turn = [aftermath.reopen_standard_files, after_turn]
        self._at_beat: list[Callable[[], None]] = []
        self._is_turn_to_end = False
        self._is_look_to_come = False
        self._beginning: deque[Beginning] = deque()
        self._is_called = False

    def context(self) -> contextvars.Context:
        """A copy for one attempt."""
        return self._context.copy()

    def call(self, action: Callable[[], object]) -> None:
        """Calls it in the loop, from any thread. Nothing runs any more in a loop that its owner has closed."""
        with suppress(RuntimeError):
            self.loop.call_soon_threadsafe(action)

    def begin(self, beginning: Beginning) -> None:
        """Lets it begin in the loop, from any thread. All that is given until the loop has a moment begins at once."""
        self._beginning.append(beginning)
        if not self._is_called:
            self._is_called = True
            self.call(self._begin_all)

    def _begin_all(self) -> None:
        self._is_called = False
        begun: list[Beginning] = []
        try:
            while self._beginning:
                beginning = self._beginning.popleft()
                beginning.begin()
                begun.append(beginning)
        finally:
            # The loop calls in order: after the first step of each.
            self._is_look_to_come = True
            self.loop.call_soon(self._look, begun)
            if self._beginning:
                self.loop.call_soon(self._begin_all)

    def _look(self, begun: Iterable[Beginning]) -> None:
        self._is_look_to_come = False
        try:
            for beginning in begun:
                beginning.look()
        finally:
            if self._is_turn_to_end:
                self._end_turn()

    def at_end_of_turn(self, action: Callable[[], None]) -> None:
        """Calls it in the loop after each turn in which agent code ended or said something."""
        self._after_turn.append(action)

    def at_each_beat(self, action: Callable[[], None]) -> None:
        """Calls it from the watch every now and then, also while the loop is blocked."""
        self._at_beat.append(action)

    def end_turn_soon(self) -> None:
        """In the loop's thread: agent code has ended or said something in this turn."""
        if not self._is_turn_to_end:
            self._is_turn_to_end = True
            # What ends in its first step needs no further turn.
            if not self._is_look_to_come:
                self.loop.call_soon(self._end_turn)

    def _end_turn(self) -> None:
        if not self._is_turn_to_end:
            return
        self._is_turn_to_end = False
        for action in self._after_turn:
            action()

    async def watch(self, beat: float = BEAT_SECONDS, blocked: float = BLOCKED_SECONDS) -> None:
        """Warns, once each time, when the loop has not moved for `blocked` seconds. Runs in another loop."""
        here = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(beat)
            for action in self._at_beat:
                action()
            moved = asyncio.Event()
            try:
                self.loop.call_soon_threadsafe(_tell, here, moved)
            except RuntimeError:
                # It is closed.
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(blocked):
                    await moved.wait()
                continue
            log.warning(
                "the event loop of the agent's functions has been blocked for %g s by %s: "
                "a plain function, or isolate='process', may block",
                blocked,
                self._blocker(),
            )
            await moved.wait()

    def _blocker(self) -> str:
        """The function that runs in the loop now, and where it is."""
        task: asyncio.Task[Any] | None = asyncio.current_task(self.loop)
        name = "some callback" if task is None else task.get_name()
        frame = sys._current_frames().get(self.thread)  # pyright: ignore[reportPrivateUsage] - there is no other way to look
        place = None if frame is None else _innermost_of_user(frame)
        return name if place is None else f"{name}, in {place}"


def _tell(loop: asyncio.AbstractEventLoop, moved: asyncio.Event) -> None:
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(moved.set)


def _innermost_of_user(frame: FrameType) -> str | None:
    """The innermost frame that is neither of an installed package nor of Python itself."""
    found: FrameType | None = frame
    libraries = (_OWN_FOLDER, str(Path(os.__file__).parent), sys.prefix)
    while found is not None and found.f_code.co_filename.startswith((*libraries, "<")):
        found = found.f_back
    if found is None:
        return None
    code = found.f_code
    return f"{code.co_qualname} ({code.co_filename}:{found.f_lineno})"

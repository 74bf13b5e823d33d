"""One attempt at a task, however its code runs: it can be started, cancelled, and ends once.

Started and cancelled from the link's thread. An async function runs in the user's event loop, a plain one in a thread.
"""

import asyncio
import contextvars
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable
from enum import Enum
from functools import partial
from typing import Any

from agent_orchestration.v1 import common_pb2, runners_pb2
from agent_runner import outcomes
from agent_runner.outbox import AttemptId, Outbox
from agent_runner.task import Task
from agent_runner.threads import Threads

Handler = Callable[[Task], Any]


class Stop(Enum):
    """Why an attempt is cancelled. Whatever its code does afterwards, this decides its outcome."""

    # It is not, or may not be, this instance's any more: nothing of it is reported.
    DROPPED = "dropped"
    REQUESTED = "requested"
    TIMEOUT = "timeout"
    # The process goes away.
    HANDED_BACK = "handed back"


class UserLoop:
    """Where agent code runs: the event loop that serves, and the context variables that were set there."""

    def __init__(self) -> None:
        """Called in the loop."""
        self.loop = asyncio.get_running_loop()
        self._context = contextvars.copy_context()

    def context(self) -> contextvars.Context:
        """A copy for one attempt."""
        return self._context.copy()


class Attempt(ABC):
    """One attempt. `end` is called once, from any thread, when its code has ended or will never begin."""

    def __init__(self, id: AttemptId, task: Task, handler: Handler, outbox: Outbox) -> None:
        self.id = id
        self._task = task
        self._handler = handler
        self._outbox = outbox
        self._stop: Stop | None = None

    @abstractmethod
    def start(self) -> None:
        """Lets its code run."""

    def cancel(self, stop: Stop) -> None:
        """Tells the code to stop. The first reason counts, except that what is dropped stays dropped."""
        if self._stop is None or stop is Stop.DROPPED:
            self._stop = stop
        self._task.cancel()
        self._interrupt()

    @abstractmethod
    def _interrupt(self) -> None:
        """Reaches code that does not look at `task.cancelled`, where that is possible."""

    def _returned(self, value: object) -> None:
        self._end(outcomes.returned(value))

    def _raised(self, error: BaseException) -> None:
        """Whatever a function raises ends its attempt, SystemExit too: it must not end the process."""
        if self._stop is None:
            for line in outcomes.traceback_lines(error):
                self._task.log.write(common_pb2.LOG_LEVEL_ERROR, line, even_if_full=True)
        self._end(outcomes.raised(error))

    def _end(self, outcome: runners_pb2.Outcome) -> None:
        self._task.log.close()
        self._outbox.end(self.id, self._outcome_of_stop() if self._stop is not None else outcome)

    def _outcome_of_stop(self) -> runners_pb2.Outcome | None:
        match self._stop:
            case Stop.REQUESTED:
                return outcomes.cancelled()
            case Stop.TIMEOUT:
                return outcomes.failed("timeout", "the attempt took longer than its timeout")
            case Stop.HANDED_BACK:
                return outcomes.handed_back("the runner went away")
            case _:
                return None


class AsyncAttempt(Attempt):
    """Runs an async function in the user's loop."""

    def __init__(self, id: AttemptId, task: Task, handler: Handler, outbox: Outbox, user: UserLoop) -> None:
        super().__init__(id, task, handler, outbox)
        self._user = user
        self._work: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins in the user's loop, as soon as that has a moment."""
        self._user.loop.call_soon_threadsafe(self._begin)

    def _begin(self) -> None:
        name = f"{self._task.id}/{self._task.attempt}"
        self._work = self._user.loop.create_task(self._run(), name=name, context=self._user.context())

    async def _run(self) -> None:
        try:
            # A cancel may have come before the code began.
            value = None if self._task.cancelled else await self._handler(self._task)
        except BaseException as error:
            self._raised(error)
        else:
            self._returned(value)

    def _interrupt(self) -> None:
        self._user.loop.call_soon_threadsafe(self._cancel_work)

    def _cancel_work(self) -> None:
        if self._work is not None:
            self._work.cancel()


class ThreadAttempt(Attempt):
    """Runs a plain function in a thread. It cannot be stopped from outside: it is told when it reports or looks."""

    def __init__(
        self, id: AttemptId, task: Task, handler: Handler, outbox: Outbox, user: UserLoop, threads: Threads
    ) -> None:
        super().__init__(id, task, handler, outbox)
        self._context = user.context()
        self._threads = threads

    def start(self) -> None:
        """Begins as soon as a thread is free."""
        self._threads.submit(partial(self._context.run, self._run))

    def _run(self) -> None:
        try:
            value = None if self._task.cancelled else self._handler(self._task)
        except BaseException as error:
            self._raised(error)
        else:
            self._returned(value)

    def _interrupt(self) -> None:
        """Nothing reaches it."""


def is_async(handler: Handler) -> bool:
    """Whether the function is one of `async def`, seen through partials and objects that can be called."""
    while isinstance(handler, partial):
        handler = handler.func
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(getattr(handler, "__call__", None))  # noqa: B004

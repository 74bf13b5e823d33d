"""Calls of an agent's functions, in whatever process they run: each ends in an outcome, whatever the code does."""

import asyncio
import inspect
import os
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from functools import partial
from typing import Any, cast

from agent_orchestration.v1 import common_pb2, runners_pb2
from agent_runner import aftermath, outcomes
from agent_runner.task import MAX_LINE_BYTES, Reporter, Task
from agent_runner.text import cut

Handler = Callable[[Task], Any]


def is_async(handler: Handler) -> bool:
    """Whether the function is one of `async def`, seen through partials and objects that can be called."""
    while isinstance(handler, partial):
        handler = handler.func
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(getattr(handler, "__call__", None))  # noqa: B004


def call(handler: Handler, task: Task, reporter: Reporter) -> runners_pb2.Outcome:
    """Calls a plain function."""
    pid = os.getpid()
    try:
        # A cancel may have come before the code began.
        return outcomes.cancelled() if task.cancelled else outcomes.returned(handler(task))
    except BaseException as error:
        return _raised(error, task, reporter)
    finally:
        aftermath.leave_if_forked(pid)
        aftermath.reopen_standard_files()


class AsyncCall:
    """A call of an async function. It runs, and is interrupted, in its own event loop."""

    def __init__(self, handler: Handler, task: Task, reporter: Reporter) -> None:
        self._handler = handler
        self._task = task
        self._reporter = reporter
        self._work: asyncio.Task[Any] | None = None
        # False for ever in a call whose asyncio task is cancelled before its first step.
        self.has_begun = False
        # Whether the next cancellation is the runner's; others are the function's own, of a timeout perhaps.
        self._is_told = False
        self._pid = os.getpid()

    async def run(self) -> runners_pb2.Outcome:
        """Runs it to its end."""
        self.has_begun = True
        self._work = asyncio.current_task()
        try:
            if self._work is None or self._task.cancelled:
                return outcomes.cancelled()
            self._task.began_in(self._work)
            return outcomes.returned(await self._steps())
        except BaseException as error:
            return _raised(error, self._task, self._reporter)
        finally:
            aftermath.leave_if_forked(self._pid)

    def interrupt(self, *, again: bool = False) -> None:
        """Raises TaskCancelled where it awaits, unless it heard of it already; `again`: also then."""
        if self._work is not None and (again or self._task.should_interrupt(self._work)):
            self._is_told = True
            self._work.cancel()

    @types.coroutine
    def _steps(self) -> Generator[Any, Any, Any]:
        """The function's steps, with the runner's cancel as TaskCancelled, which is what says where it comes from."""
        made = self._handler(self._task)
        is_coroutine = isinstance(made, types.CoroutineType)
        work = cast("Coroutine[Any, Any, Any]", made) if is_coroutine else _awaiting(made)
        value: Any = None
        thrown: BaseException | None = None
        while True:
            # A process that the function forked must not go on with what the parent's loop has to do.
            aftermath.leave_if_forked(self._pid)
            try:
                awaited = work.send(value) if thrown is None else work.throw(thrown)
            except StopIteration as end:
                return end.value
            thrown = None
            try:
                value = yield awaited
            except GeneratorExit:
                work.close()
                raise
            except BaseException as error:
                if self._is_told and isinstance(error, asyncio.CancelledError):
                    self._is_told = False
                    thrown = self._task.interruption()
                else:
                    thrown = error


async def _awaiting(made: Awaitable[Any]) -> Any:
    return await made


def _raised(error: BaseException, task: Task, reporter: Reporter) -> runners_pb2.Outcome:
    """Whatever a function raises ends its attempt, SystemExit too: it must not end the process."""
    # Agent code that forked and then raised has nothing to say here; its parent has.
    if not task.cancelled:
        for line in outcomes.traceback_lines(error):
            reporter.log(common_pb2.LOG_LEVEL_ERROR, cut(line, MAX_LINE_BYTES), even_if_full=True)
    return outcomes.raised(error)

"""Runs attempts: async functions in the user's event loop, plain ones in threads of their own."""

import asyncio
import contextvars
import functools
import inspect
import json
import logging
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from agent_orchestration.v1 import runners_pb2
from agent_runner import outcomes
from agent_runner.outbox import Attempt, Outbox
from agent_runner.task import Task

Handler = Callable[[Task], Any]

log = logging.getLogger("agent_runner")


@dataclass(slots=True)
class _Running:
    task: Task
    # How to stop it, where that is possible: a plain function only sees `task.cancelled`.
    cancel: Callable[[], object] = lambda: None


class Attempts:
    """The attempts of one agent in this process. Called from the link's thread; runs code in the user's loop."""

    def __init__(self, handlers: dict[str, Handler], outbox: Outbox, loop: asyncio.AbstractEventLoop) -> None:
        self._handlers = handlers
        self._outbox = outbox
        self._loop = loop
        self._running: dict[Attempt, _Running] = {}
        self._lock = threading.Lock()
        self._threads: ThreadPoolExecutor | None = None
        self._thread_count = 0

    def resize(self, max_concurrent_tasks: int) -> None:
        """Plain functions get one thread per slot: never a shared pool that other code may fill."""
        if max_concurrent_tasks != self._thread_count:
            old, self._thread_count = self._threads, max_concurrent_tasks
            self._threads = ThreadPoolExecutor(max_concurrent_tasks, thread_name_prefix="task")
            if old is not None:
                old.shutdown(wait=False)

    def start(self, assignments: Iterable[runners_pb2.Assignment], agent_id: str) -> None:
        """Takes up work. An attempt that is held already is not started twice."""
        ready: list[tuple[Handler, Task, Attempt]] = []
        for assignment in assignments:
            attempt = Attempt(assignment.attempt.task_id, assignment.attempt.number)
            if not self._outbox.hold(attempt):
                continue
            handler = self._handlers.get(assignment.type) or self._handlers.get("*")
            if handler is None:
                handled = ", ".join(sorted(self._handlers))
                message = f"no function is registered for {assignment.type!r}, only for: {handled}"
                self._outbox.end(attempt, outcomes.failed("no_handler", message))
                continue
            task = Task(attempt, assignment.type, json.loads(assignment.payload), agent_id, self._outbox)
            with self._lock:
                self._running[attempt] = _Running(task)
            ready.append((handler, task, attempt))
        if ready:
            self._loop.call_soon_threadsafe(self._start, ready)

    def abandon(self, attempts: Iterable[Attempt]) -> None:
        """Stops attempts that are no longer this instance's; nothing of them is reported."""
        for attempt in attempts:
            self._outbox.settle(attempt)
            self._cancel(attempt)

    def hand_back(self) -> None:
        """Gives everything that still runs back to the queue, uncounted, and stops it."""
        for attempt in self._outbox.running():
            handed_back = runners_pb2.HandedBack(reason="the process is going away")
            self._outbox.end(attempt, runners_pb2.Outcome(handed_back=handed_back))
            self._cancel(attempt)

    def _cancel(self, attempt: Attempt) -> None:
        with self._lock:
            running = self._running.get(attempt)
        if running is not None:
            running.task.cancelled = True
            self._loop.call_soon_threadsafe(lambda: running.cancel())

    def _start(self, ready: list[tuple[Handler, Task, Attempt]]) -> None:
        for handler, task, attempt in ready:
            with self._lock:
                running = self._running[attempt]
            if task.cancelled:
                self._forget(attempt)
            elif inspect.iscoroutinefunction(handler):
                work = self._loop.create_task(self._run_async(handler, task, attempt), name=f"{task.id}/{task.attempt}")
                running.cancel = work.cancel
            else:
                assert self._threads is not None
                context = contextvars.copy_context()
                run = functools.partial(self._run_plain, handler, task, attempt)
                running.cancel = self._threads.submit(context.run, run).cancel

    async def _run_async(self, handler: Handler, task: Task, attempt: Attempt) -> None:
        try:
            self._outbox.end(attempt, outcomes.returned(await handler(task)))
        except asyncio.CancelledError as error:
            if not task.cancelled:
                self._raised(task, attempt, error)
        except BaseException as error:
            self._raised(task, attempt, error)
        finally:
            self._forget(attempt)

    def _run_plain(self, handler: Handler, task: Task, attempt: Attempt) -> None:
        try:
            self._outbox.end(attempt, outcomes.returned(handler(task)))
        except BaseException as error:
            self._raised(task, attempt, error)
        finally:
            self._forget(attempt)

    def _raised(self, task: Task, attempt: Attempt, error: BaseException) -> None:
        """Whatever a function raises ends its attempt, SystemExit too: it must not end the process."""
        for lines in outcomes.traceback_lines(error):
            for line in lines.splitlines():
                task.log.error("%s", line)
        self._outbox.end(attempt, outcomes.raised(error))

    def _forget(self, attempt: Attempt) -> None:
        with self._lock:
            self._running.pop(attempt, None)

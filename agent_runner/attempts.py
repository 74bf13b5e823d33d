"""One attempt at a task, however its code runs: it can be started, cancelled, and ends once.

Started and cancelled from the link's thread. An async function runs in the user's event loop, a plain one in a thread;
what runs in a process of its own is watched over from a thread.
"""

import asyncio
from abc import ABC, abstractmethod
from enum import Enum
from functools import partial
from typing import Protocol

from agent_orchestration.v1 import common_pb2, runners_pb2
from agent_runner import outcomes
from agent_runner.calls import AsyncCall, Handler, call
from agent_runner.outbox import AttemptId, Outbox
from agent_runner.reports import Reports
from agent_runner.task import Task
from agent_runner.threads import Threads
from agent_runner.user_loop import UserLoop


class Stop(Enum):
    """Why an attempt is cancelled. Whatever its code does afterwards, this decides its outcome."""

    # It is not, or may not be, this instance's any more: nothing of it is reported.
    DROPPED = "dropped"
    REQUESTED = "requested"
    TIMEOUT = "timeout"
    # The process goes away.
    HANDED_BACK = "handed back"

    @property
    def is_urgent(self) -> bool:
        """Whether another instance may soon begin the same task."""
        return self in (Stop.DROPPED, Stop.HANDED_BACK)


class Attempt(ABC):
    """One attempt. `end` is called once, from any thread, when its code has ended or will never begin."""

    def __init__(self, id: AttemptId, task: Task, reports: Reports, outbox: Outbox, timeout: float | None) -> None:
        """`timeout` in seconds, counted from the start; None for no end."""
        self.id = id
        self.timeout = timeout
        self._task = task
        self._reports = reports
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

    def press(self) -> bool:
        """Does more than telling code that has not stopped yet. False when there is nothing more to do."""
        return False

    def give_up(self, waited: float) -> runners_pb2.Outcome | None:
        """Its code did not stop, for so many seconds: the outcome all the same. Its reports end here."""
        if self._stop is not Stop.DROPPED:
            text = f"the code has not stopped {waited:g} s after it was told to: its slot stays taken until it does"
            self._reports.log(common_pb2.LOG_LEVEL_WARNING, text, even_if_full=True)
        self._reports.close()
        return self._outcome_of_stop()

    def _end(self, outcome: runners_pb2.Outcome) -> None:
        self._reports.close()
        self._outbox.end(self.id, outcome if self._stop is None else self._outcome_of_stop())

    def _outcome_of_stop(self) -> runners_pb2.Outcome | None:
        match self._stop:
            case Stop.REQUESTED:
                return outcomes.cancelled()
            case Stop.TIMEOUT:
                return outcomes.timed_out(self.timeout)
            case Stop.HANDED_BACK:
                return outcomes.handed_back("the runner went away")
            case _:
                return None


class AsyncAttempt(Attempt):
    """Runs an async function in the user's loop."""

    def __init__(
        self,
        id: AttemptId,
        task: Task,
        reports: Reports,
        outbox: Outbox,
        timeout: float | None,
        handler: Handler,
        user: UserLoop,
    ) -> None:
        super().__init__(id, task, reports, outbox, timeout)
        self._call = AsyncCall(handler, task, reports)
        self._user = user
        self._work: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins in the user's loop, as soon as that has a moment."""
        self._user.begin(self)

    def begin(self) -> None:
        """In the user's loop."""
        name = f"the function of {self._task.type!r} ({self._task.id}, attempt {self._task.attempt})"
        self._work = self._user.loop.create_task(self._run(), name=name, context=self._user.context())

    async def _run(self) -> None:
        self._end(await self._call.run())
        self._user.end_turn_soon()

    def look(self) -> None:
        """Agent code may cancel every task of the loop: one that has not begun ends without a word of its own."""
        if not self._call.has_begun and self._work is not None:
            self._work.add_done_callback(self._never_began)

    def _never_began(self, work: "asyncio.Task[None]") -> None:
        if not self._call.has_begun:
            self._end(outcomes.raised(asyncio.CancelledError("cancelled by other code before it began")))

    def _interrupt(self) -> None:
        self._user.call(self._call.interrupt)

    def press(self) -> bool:
        """Interrupts once more, in case that it is cleaning up and does not come to an end. Nothing else reaches it."""
        self._user.call(partial(self._call.interrupt, again=True))
        return False


class ThreadAttempt(Attempt):
    """Runs a plain function in a thread. It cannot be stopped from outside: it is told when it reports or looks."""

    def __init__(
        self,
        id: AttemptId,
        task: Task,
        reports: Reports,
        outbox: Outbox,
        timeout: float | None,
        handler: Handler,
        user: UserLoop,
        threads: Threads,
    ) -> None:
        super().__init__(id, task, reports, outbox, timeout)
        self._handler = handler
        self._context = user.context()
        self._threads = threads

    def start(self) -> None:
        """Begins as soon as a thread is free."""
        self._threads.submit(partial(self._context.run, self._run))

    def _run(self) -> None:
        self._end(call(self._handler, self._task, self._reports))

    def _interrupt(self) -> None:
        """Nothing reaches it."""


class Worker(Protocol):
    """Runs one attempt in a process of its own. `run` in a thread; the others from any thread, also before it."""

    def run(self) -> runners_pb2.Outcome:
        """Runs it to its end, and everything that was started for it."""
        ...

    def tell(self) -> None:
        """Asks it to stop, at most once."""
        ...

    def press(self) -> bool:
        """Signals it, harder each time. False when there is nothing harder."""
        ...


class ProcessAttempt(Attempt):
    """Runs code in another process, watched over from a thread."""

    def __init__(
        self,
        id: AttemptId,
        task: Task,
        reports: Reports,
        outbox: Outbox,
        timeout: float | None,
        worker: Worker,
        threads: Threads,
    ) -> None:
        super().__init__(id, task, reports, outbox, timeout)
        self._worker = worker
        self._threads = threads
        self._is_told = False

    def start(self) -> None:
        """Begins as soon as a thread is free."""
        self._threads.submit(self._run)

    def _run(self) -> None:
        try:
            outcome = self._worker.run()
        except Exception as error:
            # Out of processes, of memory, of files: what starting one may meet.
            outcome = outcomes.failed(outcomes.PROCESS_DIED, f"its process could not be run: {error}")
        self._end(outcome)

    def _interrupt(self) -> None:
        if not self._is_told:
            self._is_told = True
            self._worker.tell()

    def press(self) -> bool:
        """Signals its processes."""
        return self._worker.press()

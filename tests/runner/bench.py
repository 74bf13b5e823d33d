"""An instance without a stream: attempts begin, report and end in it, and the test does what a stream would."""

import asyncio
import functools
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

from agent_orchestration.v1 import runners_pb2
from agent_runner import Agent, Task
from agent_runner.attempts import Stop
from agent_runner.calls import Handler
from agent_runner.definition import Definition
from agent_runner.held import Grace
from agent_runner.instance import Instance
from agent_runner.outbox import AttemptId, Line, Progress
from agent_runner.user_loop import UserLoop

PATIENCE: Final = 20.0
QUICK: Final = Grace(seconds=0.1, urgent=0.05)

Outcomes = dict[AttemptId, runners_pb2.Outcome]


class Bench:
    """The instance, which is welcome. `lines` and `reports` are what it has said so far."""

    def __init__(
        self, agent: Agent | Definition, limit: int = 10, grace: Grace = QUICK, configuration: str = "{}"
    ) -> None:
        loop = asyncio.get_running_loop()
        self._woken = asyncio.Event()

        def wake() -> None:
            loop.call_soon_threadsafe(self._woken.set)

        definition = agent.definition() if isinstance(agent, Agent) else agent
        self.instance = Instance(definition, UserLoop(loop), wake, grace=grace)
        self.limit = limit
        welcome = runners_pb2.Welcome(agent_id="agent_1")
        welcome.lease.FromSeconds(15)
        welcome.configure.max_concurrent_tasks = limit
        welcome.configure.configuration = configuration
        self.hello = self.instance.hello().hello
        self.instance.welcomed(welcome)
        self.lines: list[Line] = []
        self.reports: dict[AttemptId, Progress] = {}

    @property
    def text(self) -> list[str]:
        """The lines' messages."""
        return [line.message for line in self.lines]

    def assign(
        self, type: str, payload: str = "{}", task_id: str = "task_1", number: int = 1, timeout: float = 3600.0
    ) -> AttemptId:
        attempt = runners_pb2.Attempt(task_id=task_id, number=number)
        assignment = runners_pb2.Assignment(attempt=attempt, type=type, payload=payload)
        assignment.timeout.FromMicroseconds(round(timeout * 1e6))
        self.instance.held.take_up([assignment])
        return AttemptId(task_id, number)

    def cancel(self, attempt: AttemptId, stop: Stop = Stop.REQUESTED) -> None:
        self.instance.held.cancel(attempt, stop)

    def take(self) -> Outcomes:
        """What would be sent now."""
        self.instance.held.ended(self.instance.outbox.take_ended())
        lines, reports = self.instance.outbox.take_reports()
        self.lines += lines
        self.reports |= reports
        return dict(self.instance.held.take_unsent())

    async def until(self, condition: Callable[[], bool]) -> Outcomes:
        """Takes what is said until the condition holds."""
        found: Outcomes = {}
        async with asyncio.timeout(PATIENCE):
            while True:
                found |= self.take()
                if condition():
                    return found
                await self._woken.wait()
                self._woken.clear()

    async def outcomes(self, count: int = 1) -> Outcomes:
        found: Outcomes = {}
        async with asyncio.timeout(PATIENCE):
            while len(found) < count:
                found |= self.take()
                if len(found) < count:
                    await self._woken.wait()
                    self._woken.clear()
        return found

    async def run(self, type: str, payload: str = "{}", *, timeout: float = 3600.0) -> runners_pb2.Outcome:
        """Runs one attempt to its end."""
        attempt = self.assign(type, payload, timeout=timeout)
        outcome = (await self.outcomes())[attempt]
        self.instance.held.settle([attempt])
        return outcome

    async def slots_back(self) -> None:
        """Waits until every slot is free."""
        held = self.instance.held
        await self.until(lambda: held.capacity == self.limit and len(held) == 0 and held.stuck == 0)


@asynccontextmanager
async def bench(
    agent: Agent | Definition, limit: int = 10, grace: Grace = QUICK, configuration: str = "{}"
) -> AsyncGenerator[Bench, None]:
    """A bench that is closed at the end: no process and no task is left."""
    made = Bench(agent, limit, grace, configuration)
    try:
        yield made
    finally:
        made.instance.close()
        left = [task for task in asyncio.all_tasks() if task.get_name().startswith("the function of")]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


def agent_with(function: Handler) -> Agent:
    """An agent with one function, for tasks of the type `work`."""
    agent = Agent("Worker", "worker")
    agent.task("work")(function)
    return agent


async def outcome_of(function: Handler, payload: str = "{}") -> runners_pb2.Outcome:
    """How an attempt with this function ends."""
    async with bench(agent_with(function)) as made:
        return await made.run("work", payload)


def plain(function: Handler) -> Handler:
    """The function as it is."""
    return function


def asynchronous(function: Handler) -> Handler:
    """The function as one of `async def`."""

    @functools.wraps(function)
    async def wrapper(task: Task) -> Any:
        return function(task)

    return wrapper

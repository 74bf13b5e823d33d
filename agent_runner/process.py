"""A process full of agents: the link thread beside the user's loop, signals, and the way out."""

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import Generator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from types import FrameType
from typing import Final

from agent_runner.agent import Agent
from agent_runner.attempts import UserLoop
from agent_runner.link import Link
from agent_runner.settings import Address, BadSettings, read
from agent_runner.stream import Refused

log = logging.getLogger("agent_runner")

DRAIN_SECONDS: Final = 25.0
REFUSED: Final = 2
LEFTOVER_SECONDS: Final = 1.0
FORCED_EXIT_SECONDS: Final = 2.0


def run(
    agents: Sequence[Agent],
    server: str | None = None,
    api_key: str | None = None,
    drain_timeout: float = DRAIN_SECONDS,
) -> int:
    """Serves until SIGTERM or SIGINT and returns the exit code: 0 after draining, 2 when there is no point in going on.

    A second signal ends the process at once. `drain_timeout` in seconds.
    """
    if not logging.getLogger().handlers:
        logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    try:
        links = Links(agents, read(server, api_key))
        with _signals(links, drain_timeout):
            _run_user_loop(links)
    except (BadSettings, Refused) as problem:
        print(f"error: {problem}", file=sys.stderr)
        return REFUSED
    return 0


def exit_soon(code: int) -> None:
    """Lets the interpreter end in its own way, but not for long: agent code may have left threads that never end."""

    def force() -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    timer = threading.Timer(FORCED_EXIT_SECONDS, force)
    timer.daemon = True
    timer.start()
    sys.exit(code)


class Links:
    """The links of several agents, in one thread. Agent code runs in the event loop that calls `serve`."""

    def __init__(self, agents: Sequence[Agent], address: Address) -> None:
        self._agents = agents
        self._address = address
        self._loop: asyncio.AbstractEventLoop | None = None
        self._links: list[Link] = []
        self._drain_timeout: float | None = None
        # The event loop only keeps weak references to tasks.
        self._draining: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        """Serves until drained. Refused when the server will not have one of the agents."""
        user = UserLoop()
        ended: Future[None] = Future()
        ended.set_running_or_notify_cancel()
        threading.Thread(target=self._run, args=(user, ended), name="agent_runner link", daemon=True).start()
        await asyncio.wrap_future(ended)

    def drain(self, timeout: float) -> None:
        """Lets running work end, hands back the rest, says goodbye; `serve` then returns. From any thread, also from a
        signal handler. `timeout` in seconds.
        """
        self._drain_timeout = timeout
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._begin_drain)

    def _run(self, user: UserLoop, ended: "Future[None]") -> None:
        try:
            asyncio.run(self._serve(user))
        except BaseException as error:
            ended.set_exception(error)
        else:
            ended.set_result(None)

    async def _serve(self, user: UserLoop) -> None:
        self._links = [Link(agent.definition(), self._address, user) for agent in self._agents]
        self._loop = asyncio.get_running_loop()
        running = [asyncio.create_task(link.run()) for link in self._links]
        if self._drain_timeout is not None:
            self._begin_drain()
        try:
            await asyncio.wait(running, return_when=asyncio.FIRST_EXCEPTION)
            if not all(task.done() for task in running):
                # One agent was refused: the others leave in good order, but at once.
                self._drain_timeout = 0.0
                self._begin_drain()
                await asyncio.wait(running)
        finally:
            await asyncio.gather(*self._draining, return_exceptions=True)
        for task in running:
            task.result()

    def _begin_drain(self) -> None:
        if self._drain_timeout is not None and not self._draining:
            self._draining = {asyncio.create_task(link.drain(self._drain_timeout)) for link in self._links}


@contextmanager
def _signals(links: Links, drain_timeout: float) -> Generator[None, None, None]:
    """The first SIGTERM or SIGINT drains, the second ends the process. Both work while agent code blocks the loop."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    is_draining = False

    def signalled(number: int, frame: FrameType | None) -> None:
        nonlocal is_draining
        if is_draining:
            os._exit(128 + number)
        is_draining = True
        links.drain(drain_timeout)

    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, signalled) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


def _run_user_loop(links: Links) -> None:
    """`asyncio.run`, but for agent code: SystemExit in a task that it started on the side does not end the process, and
    a task that ignores its cancellation does not hold up the end.
    """
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    serving = loop.create_task(links.serve())
    try:
        while not serving.done():
            try:
                loop.run_until_complete(serving)
            except (SystemExit, KeyboardInterrupt) as error:
                log.error("a background task of agent code raised %r: ignored", error)
        serving.result()
    finally:
        leftovers = asyncio.all_tasks(loop)
        for task in leftovers:
            task.cancel()
        if leftovers:
            loop.run_until_complete(asyncio.wait(leftovers, timeout=LEFTOVER_SECONDS))
        loop.run_until_complete(loop.shutdown_asyncgens())
        asyncio.set_event_loop(None)
        loop.close()

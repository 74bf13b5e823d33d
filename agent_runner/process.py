"""A process full of agents: the link thread beside the user's loop, signals, and the way out."""

import asyncio
import logging
import os
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Final

from agent_runner.definition import Definition
from agent_runner.link import Link
from agent_runner.settings import Address, BadSettings, read
from agent_runner.signals import Signals
from agent_runner.stream import Refused
from agent_runner.user_loop import UserLoop

log = logging.getLogger("agent_runner")

DRAIN_SECONDS: Final = 25.0
REFUSED: Final = 2
LEFTOVER_SECONDS: Final = 1.0
FORCED_EXIT_SECONDS: Final = 2.0
BLOCKED_EXIT_SECONDS: Final = 5.0


def run(
    agents: Sequence[Definition],
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
        signals = Signals(lambda: links.drain(drain_timeout))
        with signals.handled():
            _serve_in_own_loop(links, signals)
    except (BadSettings, Refused) as problem:
        print(f"error: {problem}", file=sys.stderr)
        return REFUSED
    return 0


def exit_soon(code: int) -> None:
    """Lets the interpreter end in its own way, but not for long: agent code may have left threads that never end."""
    _force_exit_in(FORCED_EXIT_SECONDS, code)
    sys.exit(code)


class Links:
    """The links of several agents, in one thread. Agent code runs in an event loop that somebody else runs."""

    def __init__(self, agents: Sequence[Definition], address: Address) -> None:
        self._agents = agents
        self._address = address
        self._loop: asyncio.AbstractEventLoop | None = None
        self._links: list[Link] = []
        self._drain_timeout: float | None = None
        # The event loop only keeps weak references to tasks.
        self._draining: set[asyncio.Task[None]] = set()

    def start(self, user: UserLoop) -> "Future[None]":
        """Serves until drained; then the future is done. Refused in it when the server will not have an agent."""
        ended: Future[None] = Future()
        ended.set_running_or_notify_cancel()
        threading.Thread(target=self._run, args=(user, ended), name="agent_runner link", daemon=True).start()
        return ended

    async def serve(self) -> None:
        """Serves until drained, with agent code in this loop. Refused when the server will not have an agent."""
        await asyncio.wrap_future(self.start(UserLoop(asyncio.get_running_loop())))

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
        self._links = [Link(agent, self._address, user) for agent in self._agents]
        self._loop = asyncio.get_running_loop()
        running = [asyncio.create_task(link.run()) for link in self._links]
        watching = asyncio.create_task(user.watch())
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
            watching.cancel()
            await asyncio.gather(watching, *self._draining, return_exceptions=True)
        for task in running:
            task.result()

    def _begin_drain(self) -> None:
        if self._drain_timeout is not None and not self._draining:
            self._draining = {asyncio.create_task(link.drain(self._drain_timeout)) for link in self._links}


def _serve_in_own_loop(links: Links, signals: Signals) -> None:
    """Like `asyncio.run`, but for agent code: neither a `stop` of the loop, nor an exit in a task that it started on
    the side, nor a cancel of every task in sight ends the process; and a task that ignores its own cancel does not hold
    it up at the end.
    """
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    is_over = False

    def finish(force: threading.Timer) -> None:
        nonlocal is_over
        is_over = True
        force.cancel()
        loop.stop()

    def links_ended(ended: "Future[None]") -> None:
        # In the link's thread. Agent code may block the loop for ever; its work was handed back.
        code = REFUSED if isinstance(ended.exception(), Refused) else 0
        force = _force_exit_in(BLOCKED_EXIT_SECONDS, code)
        loop.call_soon_threadsafe(finish, force)

    ended = links.start(UserLoop(loop, signals.keep))
    ended.add_done_callback(links_ended)
    try:
        while not is_over:
            _run_agent_code(loop.run_forever)
        ended.result()
    finally:
        leftovers = asyncio.all_tasks(loop)
        for task in leftovers:
            task.cancel()
        if leftovers:
            _run_agent_code(lambda: loop.run_until_complete(asyncio.wait(leftovers, timeout=LEFTOVER_SECONDS)))
        _run_agent_code(lambda: loop.run_until_complete(loop.shutdown_asyncgens()))
        asyncio.set_event_loop(None)
        loop.close()


def _run_agent_code(run: Callable[[], object]) -> None:
    try:
        run()
    except (SystemExit, KeyboardInterrupt) as error:
        log.error("a background task of agent code raised %r: ignored", error)
    except RuntimeError as error:
        # The loop was stopped before the end, by agent code.
        log.error("at the end of the loop: %s", error)


def _force_exit_in(seconds: float, code: int) -> threading.Timer:
    def force() -> None:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)

    timer = threading.Timer(seconds, force)
    timer.daemon = True
    timer.start()
    return timer

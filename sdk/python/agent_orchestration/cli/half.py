"""One half of `ao dev`: a child process, its lines on standard output, its restarts."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from typing import Final

from agent_orchestration.cli.restarts import Restarts
from agent_orchestration.parent import PARENT_FD

# What a child exits with when starting it again would not help: bad settings, a port or a folder that is taken.
HOPELESS: Final = 2


class HalfEnded(Exception):
    """A half will not run any more; `code` is what to exit with."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class Half:
    """Runs one command as a child, again and again, until told to stop."""

    def __init__(self, name: str, arguments: Callable[[], Sequence[str]], parent_fd: int) -> None:
        """`arguments` are asked for at each start: a port that was free at first is kept from then on."""
        self.name = name
        self._arguments = arguments
        self._parent_fd = parent_fd
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = False

    async def run(self, line: Callable[[str], None]) -> None:
        """Keeps the child running and hands on each line it prints. HalfEnded when it cannot be kept running."""
        restarts = Restarts()
        while True:
            code = await self._once(line)
            if self._stopping:
                return
            if code == HOPELESS:
                raise HalfEnded("", HOPELESS)
            delay = restarts.after_death(asyncio.get_running_loop().time())
            if delay is None:
                raise HalfEnded(f"the {self.name} died too often", 1)
            print(f"the {self.name} ended ({_reason(code)}); starting it again", file=sys.stderr, flush=True)
            await asyncio.sleep(delay)

    def send(self, number: signal.Signals) -> None:
        """Signals the child. After SIGTERM it is not started again."""
        self._stopping = True
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def _once(self, line: Callable[[str], None]) -> int:
        # A session of its own keeps the terminal's Ctrl-C away: the parent passes it on, once, as SIGTERM.
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "agent_orchestration.cli",
            self.name,
            *self._arguments(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            env=os.environ | {PARENT_FD: str(self._parent_fd)},
            pass_fds=[self._parent_fd],
            start_new_session=True,
        )
        self._process = process
        if self._stopping:
            process.send_signal(signal.SIGTERM)
        async for text in _lines(process):
            line(text)
        return await process.wait()


async def _lines(process: asyncio.subprocess.Process) -> AsyncIterator[str]:
    assert process.stdout is not None
    async for raw in process.stdout:
        yield raw.decode(errors="replace").rstrip("\n")


def _reason(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

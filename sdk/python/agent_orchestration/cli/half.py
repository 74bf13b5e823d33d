"""One half of `ao dev`: a child process, its lines on standard output, its restarts."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from agent_orchestration.cli.restarts import Restarts
from agent_orchestration.parent import PARENT_FD

# What a child exits with when starting it again would not help: bad settings, a port or a folder that is taken.
HOPELESS: Final = 2


class HalfEnded(Exception):
    """A half that will not run any more. `code` is what to exit with; an empty text: the half said why itself."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class Half:
    """Runs one command as a child, again and again, until told to stop."""

    def __init__(self, name: str, arguments: Sequence[str], parent_fd: int, heard: Callable[[str], None]) -> None:
        """`heard` is called with each line that the child prints on standard output."""
        self.name = name
        self._arguments = arguments
        self._parent_fd = parent_fd
        self._heard = heard
        self._process: asyncio.subprocess.Process | None = None
        self._was_ready = False
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Keeps the child running; returns once it was told to stop and has ended. HalfEnded when it keeps dying."""
        restarts = Restarts()
        while not self._stopping.is_set():
            code = await self._run_once()
            if self._stopping.is_set():
                return
            # What was well once may be well again: a port, say, that a passing connection holds.
            if code == HOPELESS and not self._was_ready:
                raise HalfEnded("", HOPELESS)
            delay = restarts.after_death(asyncio.get_running_loop().time())
            if delay is None:
                raise HalfEnded(f"the {self.name} died too often ({_reason(code)})", 1)
            print(f"the {self.name} ended ({_reason(code)}); starting it again", file=sys.stderr, flush=True)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), delay)

    def stop(self) -> None:
        """Tells the child to stop; it is not started again."""
        self._stopping.set()
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        """Ends the child at once; it is not started again."""
        self._stopping.set()
        self._send(signal.SIGKILL)

    async def _run_once(self) -> int:
        # -P: what lies in the folder where `ao dev` was called is not for import. A session of its own keeps the
        # terminal's Ctrl-C away: the parent passes it on, once, as SIGTERM.
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-P", "-m", "agent_orchestration.cli", self.name, *self._arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            env=os.environ | {PARENT_FD: str(self._parent_fd)},
            pass_fds=[self._parent_fd],
            start_new_session=True,
        )
        self._process = process
        if self._stopping.is_set():
            self._send(signal.SIGTERM)
        assert process.stdout is not None
        async for line in process.stdout:
            self._was_ready = True
            self._heard(line.decode(errors="replace").rstrip("\n"))
        return await process.wait()

    def _send(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)


def _reason(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

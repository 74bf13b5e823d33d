"""The processes that the demo starts: `ao` commands, stopped in order at its end."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import NoReturn

AO = (sys.executable, "-m", "agent_orchestration.cli")
STOP_SECONDS = 12.0


class DemoFailed(Exception):
    """Something did not go as it should; the text says what."""


class Child:
    """A process of the demo, in a session of its own: Ctrl-C reaches the demo alone, which stops it in order."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, *arguments: str, **environment: str) -> None:
        """Starts an `ao` command."""
        with self.log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *AO,
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                # Nothing that is set for another installation counts here.
                env={name: value for name, value in os.environ.items() if not name.startswith("AGENT_ORCHESTRATION_")}
                | environment,
                start_new_session=True,
            )

    async def said(self, *starts: str) -> list[str]:
        """Waits for lines that begin like this, in this order; returns the rest of each."""
        assert self._process is not None
        assert self._process.stdout is not None
        rests: list[str] = []
        for start in starts:
            line = (await self._process.stdout.readline()).decode().rstrip("\n")
            if not line.startswith(start):
                raise DemoFailed(f"{self.name} ended" if not line else f"{self.name} said {line!r}")
            rests.append(line.removeprefix(start))
        return rests

    async def ended(self) -> int:
        """Waits for its end; returns the exit code."""
        assert self._process is not None
        return await self._process.wait()

    async def watch(self) -> NoReturn:
        """Waits for its end, which is a failure."""
        raise DemoFailed(f"{self.name} ended with {await self.ended()}")

    async def stop(self) -> None:
        """SIGTERM; SIGKILL when that does not help."""
        try:
            if self._signal(signal.SIGTERM):
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.ended(), STOP_SECONDS)
        finally:
            # Also when a second Ctrl-C breaks into the wait.
            self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> bool:
        if self._process is None or self._process.returncode is not None:
            return False
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)
        return True


@contextlib.asynccontextmanager
async def running(*children: Child) -> AsyncGenerator[None]:
    """Stops the children at the end, the last one first, whatever has happened."""
    try:
        yield
    finally:
        for child in reversed(children):
            await child.stop()

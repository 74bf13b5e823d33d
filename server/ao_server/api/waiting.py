"""Calls that wait for something to end."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from google.protobuf.duration_pb2 import Duration

from ao_server.api import calls
from ao_server.engine.waits import Waits

# What is left of a call's time for the answer after a wait.
ANSWER_SECONDS: Final = 1.0


async def until_final(waits: Waits, identifier: str, wait: Duration, is_final: Callable[[], Awaitable[bool]]) -> None:
    """Returns when the task or execution is final, or the time is over; at once without a time. `is_final` looks."""
    if wait.ToMicroseconds() <= 0:
        return
    # A call that was begun again after a loss has less time than it was meant to have.
    left = (calls.current().timeout or math.inf) - ANSWER_SECONDS
    with waits.on(identifier) as final:
        if await is_final():
            return
        async with calls.parked():
            with suppress(TimeoutError):
                async with asyncio.timeout(min(wait.ToMicroseconds() / 1e6, max(0.0, left))):
                    await final.wait()

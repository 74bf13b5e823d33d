"""Background tasks that live as long as the gateway."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

import structlog

log: Any = structlog.get_logger("ao_gateway.supervision")

PAUSE_SECONDS: Final = 1.0


def supervised(name: str, run: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
    """Runs until cancelled; a failure is logged, and after a pause it runs again."""

    async def keep_running() -> None:
        while True:
            try:
                await run()
            except Exception:
                log.exception("task_failed", task=name)
            await asyncio.sleep(PAUSE_SECONDS)

    return asyncio.create_task(keep_running(), name=name)

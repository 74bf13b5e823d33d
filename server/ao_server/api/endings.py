"""Calls that end with the credential they were made under: streams, and those that wait for something to happen."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import msgspec

from ao_server.engine.access import Access, Held
from ao_server.errors import Unauthorized

NOT_ANY_MORE: Final = Unauthorized("the credential is not valid any more")


class Endings:
    """Knows which calls were ended, as opposed to cancelled by their callers."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._ended: set[asyncio.Task[Any]] = set()

    async def hold(self, credential: str) -> Held:
        """From now on the call that runs ends with its credential. Unauthorized when that has ended."""
        task = asyncio.current_task()
        assert task is not None
        principal = await self._access.authenticate(credential)
        return self._access.hold(principal, partial(self._end, task))

    def release(self, held: Held) -> None:
        """Not any more."""
        self._access.release(held)

    def has_ended(self) -> bool:
        """Whether the call that runs was ended. Says so once."""
        task = asyncio.current_task()
        if task not in self._ended:
            return False
        self._ended.discard(task)
        task.uncancel()
        return True

    def _end(self, task: asyncio.Task[Any]) -> None:
        if task not in self._ended:
            self._ended.add(task)
            # It may be over before it comes to hear of it.
            task.add_done_callback(self._ended.discard)
            task.cancel()


class Parking(msgspec.Struct):
    """A call that waits for something to happen ends with its credential; others are soon over."""

    endings: Endings
    credential: str
    told: Callable[[bool], None]
    held: Held | None = None

    async def __aenter__(self) -> None:
        # The credential may have ended since the call was admitted, when nobody would have been told.
        self.held = await self.endings.hold(self.credential)
        self.told(True)

    async def __aexit__(self, *exception: object) -> None:
        assert self.held is not None
        self.endings.release(self.held)
        self.told(False)

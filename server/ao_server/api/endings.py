"""Calls that end with the credential they were made under: streams, and those that wait for something to happen."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import msgspec

from ao_server.engine.access import Access, Held, Principal
from ao_server.errors import Unauthorized

NOT_ANY_MORE: Final = Unauthorized("the credential is not valid any more")


class Endings:
    """Knows which calls were ended, as opposed to cancelled by their callers."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._ended: set[asyncio.Task[Any]] = set()

    def hold(self, credential: str, principal: Principal) -> Held:
        """From now on the call that runs ends with its credential."""
        task = asyncio.current_task()
        assert task is not None
        return self._access.hold(credential, principal, partial(self._end, task))

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
        self._ended.add(task)
        task.cancel()


class Parking(msgspec.Struct):
    """A call that waits for something to happen ends with its credential; others are soon over."""

    endings: Endings
    credential: str
    principal: Principal
    told: Callable[[bool], None]
    held: Held | None = None

    def __call__(self, is_parked: bool) -> None:
        """As `calls.Call.on_parked`."""
        self.told(is_parked)
        if is_parked:
            self.held = self.endings.hold(self.credential, self.principal)
        elif self.held is not None:
            self.endings.release(self.held)
            self.held = None

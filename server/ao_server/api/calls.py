"""One call: who makes it, under which id, and how long it may take. Methods read it here, whichever way it came in."""

from contextlib import AbstractAsyncContextManager, nullcontext
from contextvars import ContextVar
from typing import Final

import msgspec
from msgspec.structs import replace

from ao_server.engine.access import Principal
from ao_server.errors import DeadlineExceeded

DEFAULT_TIMEOUT_SECONDS = 60.0


NOT_PARKED: Final = nullcontext()


class Call(msgspec.Struct, frozen=True):
    """`timeout` in seconds, None for a stream without end."""

    principal: Principal
    request_id: str
    timeout: float | None
    # Entered when the call begins to wait for something to happen, left when it goes on.
    parking: AbstractAsyncContextManager[None] = NOT_PARKED
    # Where it came from; empty where that is not known.
    address: str = ""
    # What it is about, where neither its path nor its answer says so.
    object_id: str = ""

    @property
    def project_id(self) -> str:
        """The project that the call acts in."""
        return self.principal.project_id


_current: ContextVar[Call] = ContextVar("call")


def current() -> Call:
    """The call that this code runs for."""
    return _current.get()


def too_late() -> DeadlineExceeded:
    """What a call is refused with whose time is over."""
    return DeadlineExceeded("the call took longer than its deadline")


def parked() -> AbstractAsyncContextManager[None]:
    """While the current call only waits: it does not count among those that are worked on, and ends with its
    credential. Unauthorized when that has ended already.
    """
    return current().parking


def enter(call: Call) -> None:
    """Makes this the call of the current task for good: each call has a task of its own."""
    _current.set(call)


def act_as(principal: Principal) -> None:
    """The current call turns out to be this principal's: a gateway has made it for somebody."""
    _current.set(replace(current(), principal=principal))


def concerns(object_id: str) -> None:
    """Says what the current call is about."""
    _current.set(replace(current(), object_id=object_id))

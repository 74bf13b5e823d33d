"""One call: who makes it, under which id, and how long it may take. Methods read it here, whichever way it came in."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from ao_server.engine.access import Principal
from ao_server.errors import DeadlineExceeded

DEFAULT_TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Call:
    """`timeout` in seconds, None for a stream without end."""

    principal: Principal
    request_id: str
    timeout: float | None
    # Told with True when the call begins to wait for something to happen, with False when it goes on.
    on_parked: Callable[[bool], None] = lambda is_parked: None

    @property
    def project_id(self) -> str:
        """The project that the call acts in."""
        return self.principal.project_id


_current: ContextVar[Call] = ContextVar("call")


def current() -> Call:
    """The call that this code runs for."""
    return _current.get()


@asynccontextmanager
async def within(call: Call) -> AsyncGenerator[None, None]:
    """Runs a unary call; DeadlineExceeded when its time is over."""
    token = _current.set(call)
    try:
        async with asyncio.timeout(call.timeout):
            yield
    except TimeoutError:
        raise DeadlineExceeded("the call took longer than its deadline") from None
    finally:
        _current.reset(token)


@contextmanager
def parked() -> Generator[None]:
    """While the current call only waits: it does not count among those that are worked on."""
    told = current().on_parked
    told(True)
    try:
        yield
    finally:
        told(False)


def enter(call: Call) -> None:
    """Makes this the call of the current task for good: for streams, which have a task of their own."""
    _current.set(call)

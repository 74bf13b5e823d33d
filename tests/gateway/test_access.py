"""What a gateway believes of credentials while changes, answers and losses of the server overtake each other."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc
import pytest

from agent_orchestration.v1 import access_pb2, monitoring_pb2
from ao_gateway.access import MAX_ASKING, Access
from ao_gateway.credentials import recheck
from ao_gateway.errors import Refusal
from ao_gateway.feed import Feed
from tests.gateway.conftest import DEADLINE, until


class Watch:
    """A stream that a test fills."""

    def __init__(self) -> None:
        self._answers: asyncio.Queue[Any] = asyncio.Queue()

    def say(self, *ids: str) -> None:
        self._answers.put_nowait(access_pb2.WatchCredentialsResponse(credential_ids=ids))

    def cancel(self) -> None:
        self._answers.put_nowait(asyncio.CancelledError())

    async def __aiter__(self) -> AsyncGenerator[Any]:
        while True:
            answer = await self._answers.get()
            if isinstance(answer, BaseException):
                raise answer
            yield answer


class Server:
    """The server's side of it: what it says of any credential, once a test lets it."""

    def __init__(self) -> None:
        self.is_good = True
        self.asked = 0
        self.lets = asyncio.Event()
        self.lets.set()
        self.watches: list[Watch] = []
        self.feeds = 0
        self.access = self
        self.monitoring = self

    def metadata(self, project_id: str | None = None) -> tuple[()]:
        return ()

    async def Authenticate(self, request: Any, metadata: Any, timeout: float) -> access_pb2.AuthenticateResponse:
        self.asked += 1
        is_good = self.is_good
        await self.lets.wait()
        if not is_good:
            raise grpc.aio.AioRpcError(grpc.StatusCode.UNAUTHENTICATED, grpc.aio.Metadata(), grpc.aio.Metadata())
        response = access_pb2.AuthenticateResponse(principal=access_pb2.Principal(credential_id="key_1"))
        response.cache_for.FromSeconds(1)
        return response

    def WatchCredentials(self, request: Any, metadata: Any) -> Watch:
        self.watches.append(Watch())
        return self.watches[-1]

    def WatchEvents(self, request: monitoring_pb2.WatchEventsRequest, metadata: Any) -> Watch:
        self.feeds += 1
        return Watch()


class Time:
    """Monotonic seconds."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


class Parts:
    """The access of a gateway over it."""

    def __init__(self) -> None:
        self.server = Server()
        self.time = Time()
        self.connected = asyncio.Event()
        self.connected.set()
        upstream: Any = self.server
        self.access = Access(upstream, self.connected, self.time)

    async def is_good(self) -> bool:
        try:
            await self.access.authenticate("ao_live_one")
        except Refusal as refusal:
            assert refusal.status == 401
            return False
        return True

    async def watched(self, count: int = 1) -> Watch:
        """The watch of that number, which has begun."""
        await until(lambda: len(self.server.watches) == count)
        watch = self.server.watches[-1]
        self.access.changed.clear()
        watch.say()
        async with asyncio.timeout(DEADLINE):
            await self.access.changed.wait()
        return watch


@asynccontextmanager
async def started() -> AsyncGenerator[Parts]:
    made = Parts()
    task = asyncio.create_task(made.access.run())
    try:
        yield made
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest.fixture
async def parts() -> AsyncGenerator[Parts]:
    async with started() as made:
        yield made


async def test_while_it_watches_an_answer_holds_until_it_hears_of_a_change(parts: Parts) -> None:
    watch = await parts.watched()
    assert await parts.is_good()
    parts.time.seconds = 1000.0
    assert await parts.is_good() and parts.server.asked == 1
    parts.server.is_good = False
    parts.access.changed.clear()
    watch.say("key_1")
    await parts.access.changed.wait()
    assert not await parts.is_good()


async def test_an_answer_that_a_change_has_overtaken_is_not_kept_nor_waited_for_by_others(parts: Parts) -> None:
    watch = await parts.watched()
    parts.server.lets.clear()
    early = asyncio.create_task(parts.is_good())
    await until(lambda: parts.server.asked == 1)
    parts.server.is_good = False
    parts.access.changed.clear()
    watch.say("key_1")
    await parts.access.changed.wait()
    late = asyncio.create_task(parts.is_good())
    await until(lambda: parts.server.asked == 2)
    parts.server.lets.set()
    # The first was asked for in time.
    assert await early and not await late
    assert not await parts.is_good()


async def test_a_lost_server_takes_with_it_all_that_was_known(parts: Parts) -> None:
    await parts.watched()
    assert await parts.is_good()
    parts.server.is_good = False
    # The stream that tells of changes may not know yet that it is dead.
    parts.access.server_lost()
    assert not await parts.is_good()
    await parts.watched(2)
    assert not await parts.is_good()


async def test_unwatched_an_answer_holds_for_as_long_as_the_server_said() -> None:
    parts = Parts()
    assert await parts.is_good()
    parts.time.seconds = 0.9
    assert await parts.is_good() and parts.server.asked == 1
    parts.time.seconds, parts.server.is_good = 1.1, False
    assert not await parts.is_good()


async def test_a_flood_of_unknown_credentials_is_bounded_and_costs_the_known_nothing(parts: Parts) -> None:
    await parts.watched()
    assert await parts.is_good()
    parts.server.lets.clear()
    asking = [asyncio.create_task(parts.access.authenticate(f"ao_live_{each}")) for each in range(MAX_ASKING)]
    await until(lambda: parts.server.asked == 1 + MAX_ASKING)
    with pytest.raises(Refusal) as refused:
        await parts.access.authenticate("ao_live_one_more")
    assert refused.value.status == 503
    assert await parts.is_good()
    parts.server.lets.set()
    await asyncio.gather(*asking)
    assert await parts.access.authenticate("ao_live_one_more")


class Holder:
    """Holds one connection."""

    def __init__(self) -> None:
        self.credentials = {"ao_live_one"}

    def end_credential(self, credential: str) -> None:
        self.credentials.discard(credential)


async def test_after_a_loss_no_event_is_passed_on_before_every_credential_was_asked_about(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ao_gateway.feed.FIRST_BACKOFF_SECONDS", 0.0)
    holder = Holder()
    upstream: Any = parts.server
    feed = Feed(upstream, parts.access.is_current, "project_1")
    tasks = [asyncio.create_task(each) for each in (recheck(parts.access, [holder]), feed.run())]
    await parts.watched()
    await until(lambda: parts.server.feeds == 1)
    parts.server.lets.clear()
    parts.server.is_good = False
    parts.access.server_lost()
    feed.reconnect()
    await until(lambda: len(parts.server.watches) == 2)
    parts.server.watches[-1].say()
    await until(lambda: parts.server.asked == 2)
    assert parts.server.feeds == 1 and holder.credentials
    parts.server.lets.set()
    await until(lambda: parts.server.feeds == 2)
    assert not holder.credentials
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

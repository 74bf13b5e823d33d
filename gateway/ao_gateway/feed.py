"""The events of each project: one WatchEvents stream, shared by all sockets of the project.

Cursors of one feed sort as text in feed order; that is how a subscription which catches up on a stream of its own
knows that it has reached the shared one, and how no event is delivered twice.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import grpc
import structlog

from agent_orchestration.v1 import monitoring_pb2
from ao_gateway.channels import Filter
from ao_gateway.errors import Refusal, from_rpc_error, unavailable
from ao_gateway.frames import FeedEvent, Sink
from ao_gateway.upstream import NoCredential, Upstream

log: Any = structlog.get_logger("ao_gateway.feed")

FIRST_BACKOFF_SECONDS: Final = 0.1
MAX_BACKOFF_SECONDS: Final = 1.0
READY_SECONDS: Final = 10.0


@dataclass(slots=True)
class Batch:
    """Events in feed order, and the cursor behind them. `alerts` stand outside the feed: they have no cursor yet."""

    events: list[FeedEvent]
    cursor: str
    alerts: list[FeedEvent] = field(default_factory=lambda: [])
    # Frames and their number by the filters of a socket, for all sockets that have the same.
    shared: dict[tuple[Filter, ...], tuple[bytes, int]] = field(default_factory=lambda: {})


class Watcher(Protocol):
    """Hears of every batch of a project's feed."""

    def deliver(self, batch: Batch) -> None:
        """Takes a batch, without waiting."""
        ...

    def alert(self, alerts: Sequence[FeedEvent]) -> None:
        """Takes events that are outside the feed, without waiting. They come again within it."""
        ...

    def cut(self, reason: str) -> None:
        """The feed cannot go on from where it stood; whoever watches must start again."""
        ...


class Feed:
    """One project's events, from the first watcher to the last."""

    def __init__(self, upstream: Upstream, is_current: asyncio.Event, project_id: str) -> None:
        """`is_current`: set while it is certain that no socket is open under a credential that has ended."""
        self._upstream = upstream
        self._is_current = is_current
        self._project_id = project_id
        self._call: Any = None
        self._behind: set[Any] = set()
        self._ready = asyncio.Event()
        self._is_connected = False
        self.position = ""
        self.watchers: set[Watcher] = set()

    async def ready(self) -> None:
        """Waits until the feed has a position. Refusal with 503 when the server does not give one."""
        try:
            async with asyncio.timeout(READY_SECONDS):
                await self._ready.wait()
        except TimeoutError:
            raise unavailable("The server cannot be reached") from None

    async def behind(self, after: str, sink: Sink) -> AsyncGenerator[Batch]:
        """The batches behind a cursor, on a stream of their own, until the caller has enough; the first is empty.

        Alerts in them come over the shared stream as well. It ends when the sink is closed. Refusal when the cursor
        cannot be used or the server is away at the start.
        """
        is_open = False
        backoff = FIRST_BACKOFF_SECONDS
        while True:
            if is_open:
                await self._is_current.wait()
            if sink.is_closed:
                return
            call = self._watch(after)
            self._behind.add(call)
            sink.on_closed(call)
            try:
                async for response in call:
                    is_open = True
                    backoff = FIRST_BACKOFF_SECONDS
                    batch = _batch(response, after)
                    after = batch.cursor
                    yield batch
            except grpc.aio.AioRpcError as error:
                refusal = from_rpc_error(error)
                if not is_open or refusal.status != 503:
                    raise refusal from None
            except asyncio.CancelledError:
                if _is_cancelled():
                    raise
                if sink.is_closed:
                    return
                if not is_open:
                    raise unavailable("The server cannot be reached") from None
            finally:
                self._behind.discard(call)
                call.cancel()
            await asyncio.sleep(backoff * random.uniform(0.5, 1.0))
            backoff = min(backoff * 2, MAX_BACKOFF_SECONDS)

    async def run(self) -> None:
        """Follows the feed until cancelled; what happens while the server is away arrives once it is back."""
        backoff = FIRST_BACKOFF_SECONDS
        while True:
            try:
                await self._is_current.wait()
                self._call = self._watch(self.position or None)
                async for response in self._call:
                    backoff = FIRST_BACKOFF_SECONDS
                    self._take(_batch(response, self.position))
            except asyncio.CancelledError:
                if _is_cancelled():
                    raise
            except grpc.aio.AioRpcError as error:
                self._failed(error)
            except Refusal as refusal:
                self._report_lost(refusal.message)
            except Exception:
                log.exception("feed_failed", project_id=self._project_id)
                self._restart("internal_error")
            finally:
                if self._call is not None:
                    self._call.cancel()
            await asyncio.sleep(backoff * random.uniform(0.5, 1.0))
            backoff = min(backoff * 2, MAX_BACKOFF_SECONDS)

    def reconnect(self) -> None:
        """Gives up streams that may be dead without saying so; others are opened in their place."""
        for call in (self._call, *self._behind):
            if call is not None:
                call.cancel()

    def _watch(self, after: str | None) -> Any:
        try:
            metadata = self._upstream.metadata(self._project_id)
        except NoCredential:
            raise unavailable("The server cannot be reached") from None
        return self._upstream.monitoring.WatchEvents(monitoring_pb2.WatchEventsRequest(after=after), metadata=metadata)

    def _take(self, batch: Batch) -> None:
        self.position = batch.cursor
        self._is_connected = True
        self._ready.set()
        if batch.events:
            for watcher in list(self.watchers):
                watcher.deliver(batch)
        if batch.alerts:
            for watcher in list(self.watchers):
                watcher.alert(batch.alerts)

    def _failed(self, error: grpc.aio.AioRpcError) -> None:
        if error.code() is not grpc.StatusCode.OUT_OF_RANGE:
            self._report_lost(f"{error.code().name}: {error.details()}")
            return
        # Another store, or one put back to an earlier state: nothing can be promised across that.
        refusal = from_rpc_error(error)
        log.warning("feed_broken", project_id=self._project_id, reason=refusal.code)
        self._restart(refusal.code)

    def _report_lost(self, reason: str) -> None:
        if self._is_connected:
            log.info("feed_lost", project_id=self._project_id, reason=reason)
        self._is_connected = False

    def _restart(self, reason: str) -> None:
        self.position = ""
        self._ready.clear()
        for watcher in list(self.watchers):
            watcher.cut(reason)


class Feeds:
    """The feeds that somebody watches."""

    def __init__(self, upstream: Upstream, is_current: asyncio.Event) -> None:
        """`is_current`: see `Feed`."""
        self._upstream = upstream
        self._is_current = is_current
        self._feeds: dict[str, tuple[Feed, asyncio.Task[None]]] = {}

    def join(self, project_id: str, watcher: Watcher) -> Feed:
        """The project's feed, with the watcher on it."""
        entry = self._feeds.get(project_id)
        if entry is None:
            feed = Feed(self._upstream, self._is_current, project_id)
            entry = (feed, asyncio.create_task(feed.run()))
            self._feeds[project_id] = entry
        entry[0].watchers.add(watcher)
        return entry[0]

    def leave(self, project_id: str, watcher: Watcher) -> None:
        """Takes the watcher off; the last one ends the feed."""
        feed, task = self._feeds[project_id]
        feed.watchers.discard(watcher)
        if not feed.watchers:
            del self._feeds[project_id]
            task.cancel()

    def reconnect(self) -> None:
        """Gives up all streams: the server is not there any more."""
        for feed, _ in self._feeds.values():
            feed.reconnect()

    async def close(self) -> None:
        """Ends all feeds."""
        tasks = [task for _, task in self._feeds.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _batch(response: monitoring_pb2.WatchEventsResponse, position: str) -> Batch:
    """What a response brings to a stream that stands at the position."""
    events = [FeedEvent(event) for event in response.events]
    alerts = [event for event in events if not event.cursor]
    if alerts:
        events = [event for event in events if event.cursor]
    return Batch(events, response.cursor or position, alerts)


def _is_cancelled() -> bool:
    """Whether the running task is to end, as opposed to the call that it reads."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0

"""The subscriptions of one socket: each event reaches it once, through the first subscription that carries it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ao_gateway.channels import Filter
from ao_gateway.feed import Batch
from ao_gateway.frames import FeedEvent, Sink

MAX_BACKLOG_MESSAGES: Final = 10_000
MAX_BACKLOG_BYTES: Final = 4 * 1024 * 1024
TOO_SLOW: Final = 4008
RESTART: Final = 1012


@dataclass(slots=True, eq=False)
class Subscription:
    """A filter with its place in the feed: what lies behind `since` is, was or will be delivered through it."""

    filter: Filter
    since: str
    # Up to here it has caught up on its own.
    replayed: str
    # Behind this cursor the shared feed delivers; None while the subscription still catches up.
    live_since: str | None = None

    def carries(self, event: FeedEvent) -> bool:
        """Whether the shared feed delivers the event through this subscription."""
        return self.live_since is not None and event.cursor > self.live_since and self.filter.matches(event)

    def has_carried(self, event: FeedEvent) -> bool:
        """Whether the event was or will be delivered through this subscription."""
        return self.live_since is not None and event.cursor > self.since and self.filter.matches(event)


class SocketWatcher:
    """Delivers to one socket, and cuts it off when it takes too little."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._delivered = ""
        self._caught_up = ""
        self.subscriptions: list[Subscription] = []

    def find(self, chosen: Filter) -> Subscription | None:
        """The subscription with exactly this filter."""
        return next((each for each in self.subscriptions if each.filter == chosen), None)

    def front(self, position: str) -> str:
        """The cursor from which something new starts: behind all that was sent, so that nothing is sent again.

        A subscription that caught up on a stream of its own may be ahead of the shared feed, which is at the position.
        """
        return max(position, self._caught_up)

    def go_live(self, subscription: Subscription, cursor: str, position: str) -> None:
        """Behind this cursor the shared feed, which stands at the position, delivers."""
        subscription.live_since = cursor
        self._caught_up = max(self._caught_up, cursor)
        self._delivered = max(self._delivered, position)

    def deliver(self, batch: Batch) -> None:
        """Sends what is live; a socket whose backlog would pass the bound is closed with a cursor to resume from."""
        frames, count = self._frames(batch)
        if not count or self._send(frames, count):
            self._delivered = max(self._delivered, batch.cursor)

    def alert(self, alerts: Sequence[FeedEvent]) -> None:
        """Sends what is outside the feed, also to subscriptions that still catch up."""
        frames: list[bytes] = []
        for event in alerts:
            channel = next((each.filter.channel for each in self.subscriptions if each.filter.matches(event)), None)
            if channel is not None:
                frames.append(event.frame(channel))
        if frames:
            self._send(b"".join(frames), len(frames))

    def cut(self, reason: str) -> None:
        """Ends the socket: the feed is not the same any more."""
        self._sink.end(RESTART, reason)

    async def replay(self, batch: Batch, subscription: Subscription) -> None:
        """Sends what the subscription catches up on, at the pace of the socket."""
        frames = [
            event.frame(subscription.filter.channel)
            for event in batch.events
            if subscription.filter.matches(event) and not self._is_covered(event, subscription)
        ]
        if frames:
            await self._sink.drained()
            self._send(b"".join(frames), len(frames))
        subscription.replayed = batch.cursor

    def _is_covered(self, event: FeedEvent, replayed: Subscription) -> bool:
        return any(each.has_carried(event) for each in self.subscriptions if each is not replayed)

    def _frames(self, batch: Batch) -> tuple[bytes, int]:
        """The batch's frames for this socket and their number, shared with sockets that have the same subscriptions."""
        first = batch.events[0].cursor
        if any(each.live_since is None or each.live_since >= first for each in self.subscriptions):
            return self._joined(batch)
        key = tuple(each.filter for each in self.subscriptions)
        shared = batch.shared.get(key)
        if shared is None:
            shared = batch.shared[key] = self._joined(batch)
        return shared

    def _joined(self, batch: Batch) -> tuple[bytes, int]:
        frames: list[bytes] = []
        for event in batch.events:
            for subscription in self.subscriptions:
                if subscription.carries(event):
                    frames.append(event.frame(subscription.filter.channel))
                    break
        return b"".join(frames), len(frames)

    def _send(self, frames: bytes, count: int) -> bool:
        sink = self._sink
        if sink.backlog_bytes + len(frames) > MAX_BACKLOG_BYTES or sink.backlog_messages + count > MAX_BACKLOG_MESSAGES:
            sink.end(TOO_SLOW, self._resume_from())
            return False
        sink.write(frames, count)
        return True

    def _resume_from(self) -> str:
        """The last cursor up to which everything was sent."""
        catching_up = (each.replayed for each in self.subscriptions if each.live_since is None)
        return min((self._delivered, *catching_up)) if self._delivered else min(catching_up, default="")

"""The event feed: what was committed, in order, to everyone who watches, from wherever they left off.

While anybody watches, the newest events stay in memory, shared by all watchers; each watcher is but a position. One
that falls behind the shared part reads from the store at its own pace, so a slow watcher costs no memory and misses
nothing.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Generator, Iterable, Sequence
from contextlib import contextmanager
from itertools import groupby, islice
from operator import attrgetter
from typing import Final

from ao_server.errors import CursorRejected
from ao_server.store import events, rows
from ao_server.store.reader import Reader

# Events in memory, and bytes in them, of all projects together.
KEPT_EVENTS: Final = 20_000
KEPT_BYTES: Final = 32 * 1024 * 1024
READ_AT_ONCE: Final = 500
KEPT_LIVE: Final = 100


class _Memory:
    """What is kept of all projects. At the bound whoever keeps most gives up its oldest events."""

    def __init__(self) -> None:
        self.events = 0
        self.bytes = 0
        self.tails: set[_Tail] = set()

    def count(self, events: int, size: int) -> None:
        """So many more, or fewer, are kept."""
        self.events += events
        self.bytes += size

    def trim(self) -> None:
        """Keeps to the bound."""
        while self.events > KEPT_EVENTS or self.bytes > KEPT_BYTES:
            largest = max(self.tails, key=_Tail.share)
            # A part at a time: to look for the largest costs more with more projects.
            largest.give_up(max(1, largest.kept // 16))


class _Tail:
    """The newest events of a project."""

    def __init__(self, head: rows.Feed, memory: _Memory) -> None:
        self._memory = memory
        self.feed_id = head.feed_id
        self.last = head.last
        self.changed = asyncio.Event()
        self.live = 0
        self._watchers = 0
        self._events: deque[rows.Event] = deque()
        self._bytes = 0
        self._live: deque[rows.Event] = deque(maxlen=KEPT_LIVE)

    @contextmanager
    def watched(self) -> Generator[None]:
        """Events are kept."""
        self._watchers += 1
        self._memory.tails.add(self)
        try:
            yield
        finally:
            self._watchers -= 1
            if not self._watchers:
                self.give_up(self.kept)
                self._memory.tails.discard(self)

    def extend(self, committed: Sequence[rows.Event]) -> None:
        self.last = committed[-1].position
        if not self._watchers:
            return
        self._events.extend(committed)
        size = sum(len(event.body) for event in committed)
        self._bytes += size
        self._memory.count(len(committed), size)
        self._memory.trim()

    @property
    def kept(self) -> int:
        """How many events are in memory."""
        return len(self._events)

    def share(self) -> float:
        """What it keeps, as a part of the bound."""
        return max(self.kept / KEPT_EVENTS, self._bytes / KEPT_BYTES)

    def give_up(self, count: int) -> None:
        """Keeps the oldest so many no longer: who is still behind them reads the store."""
        size = sum(len(self._events.popleft().body) for _ in range(count))
        self._bytes -= size
        self._memory.count(-count, -size)

    def append_live(self, event: rows.Event) -> None:
        self._live.append(event)
        self.live += 1

    def live_after(self, number: int) -> list[rows.Event]:
        """Live events behind this one, by their count; those that are no longer kept are left out."""
        fresh = min(self.live - number, len(self._live))
        return list(islice(self._live, len(self._live) - fresh, None))

    def wake(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()

    def after(self, position: int, limit: int) -> list[rows.Event] | None:
        """Events behind the position, None when some of them are no longer in memory."""
        behind = self.last - position
        if behind > len(self._events):
            return None
        start = len(self._events) - behind
        return list(islice(self._events, start, start + limit))


class Feed:
    """All projects' feeds."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._memory = _Memory()
        self._tails: dict[str, _Tail] = {}

    async def open(self) -> None:
        """Reads where each feed stands."""
        for head in await events.feeds(self._reader):
            self.add(head)

    def add(self, head: rows.Feed) -> None:
        """There is a new project."""
        self._tails[head.project_id] = _Tail(head, self._memory)

    def publish(self, committed: Iterable[rows.Event]) -> None:
        """Takes the events of a commit, in order, and wakes their watchers."""
        for project_id, own in groupby(committed, attrgetter("project_id")):
            tail = self._tails[project_id]
            tail.extend(list(own))
            tail.wake()

    def publish_live(self, event: rows.Event) -> None:
        """Tells whoever watches now of what the store cannot take yet. It has no position: nobody can resume at it."""
        tail = self._tails[event.project_id]
        tail.append_live(event)
        tail.wake()

    @property
    def projects(self) -> list[str]:
        """All projects."""
        return list(self._tails)

    def has(self, project_id: str) -> bool:
        """Whether there is such a project."""
        return project_id in self._tails

    def head(self, project_id: str) -> int:
        """The position of the last event."""
        return self._tails[project_id].last

    def cursor(self, project_id: str, position: int) -> str:
        """A position as text; it fits this feed alone."""
        return f"{self._tails[project_id].feed_id}{position:012x}"

    async def position(self, project_id: str, cursor: str) -> int:
        """The position that a cursor stands for. CursorRejected when one cannot resume from it."""
        tail = self._tails[project_id]
        text = cursor.removeprefix(tail.feed_id)
        if text == cursor or len(text) != 12 or not set(text) <= set("0123456789abcdef"):
            raise CursorRejected("not a cursor of this feed", code="cursor_invalid")
        position = int(text, 16)
        if position > tail.last:
            raise CursorRejected("the cursor is ahead of the feed", code="cursor_ahead")
        head = await events.feed(self._reader, project_id)
        if head is not None and position < head.pruned:
            raise CursorRejected("events behind the cursor were pruned", code="cursor_expired")
        return position

    async def watch(self, project_id: str, position: int) -> AsyncIterator[Sequence[rows.Event]]:
        """Yields the events behind the position in order, then each batch as it is committed, without end; in between,
        live events, whose position is 0. CursorRejected when events were pruned before the watcher came to them.
        """
        tail = self._tails[project_id]
        live = tail.live
        with tail.watched():
            while True:
                changed = tail.changed
                if tail.live > live:
                    fresh = tail.live_after(live)
                    live = tail.live
                    yield fresh
                batch = tail.after(position, READ_AT_ONCE)
                if batch is None:
                    batch = await events.after(self._reader, project_id, position, READ_AT_ONCE)
                    if not batch or batch[0].position != position + 1:
                        raise CursorRejected("events behind the cursor were pruned", code="cursor_expired")
                if batch:
                    position = batch[-1].position
                    yield batch
                else:
                    await changed.wait()

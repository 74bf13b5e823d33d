"""Conditions of the system itself: watched, raised and cleared as events of every project.

An alert that the store cannot take goes out live, without a cursor, and is committed once the store is back.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

import structlog

from ao_server.engine import bodies
from ao_server.engine.clock import Clock
from ao_server.engine.feed import Feed
from ao_server.errors import DeadlineExceeded, Unavailable
from ao_server.store import rows
from ao_server.store.changes import Changes, Found, Key, Operation
from ao_server.store.writer import Writer

log = structlog.get_logger("ao_server.engine.alerts")

LOOK_SECONDS: Final = 1.0
# A condition at its threshold must not flicker.
DISK_SLACK_PERCENT: Final = 1.0
# Alerts that wait for the store, whatever the number of projects that each is for; the oldest are given up, they were
# heard live.
MAX_WAITING: Final = 100


@dataclass(slots=True)
class _Condition:
    code: str
    raised: str
    cleared: str
    # When it began, None while it does not hold.
    since: int | None = None


@dataclass(frozen=True, slots=True)
class _Alert:
    """What every project is to hear."""

    body: bodies.AlertBody
    at: int

    def events(self, projects: Iterable[str]) -> list[rows.Event]:
        return [bodies.event("system_alert", project_id, self.body, self.at, agent_id=None) for project_id in projects]


class Alerts:
    """Watches the store and the disk."""

    def __init__(self, feed: Feed, clock: Clock, disk_usage: Callable[[], float], disk_limit: float) -> None:
        """`disk_usage` and `disk_limit` in percent."""
        self._feed = feed
        self._clock = clock
        self._disk_usage = disk_usage
        self._disk_limit = disk_limit
        self._store = _Condition("store_unavailable", "the store cannot be written", "the store can be written again")
        self._disk = _Condition(
            "disk_almost_full", f"the disk is more than {disk_limit:g} % full", "the disk has room again"
        )
        self._waiting: list[_Alert] = []
        # How many of those were told live.
        self._told = 0

    async def run(self, writer: Writer) -> None:
        """Runs for as long as the server does."""
        while True:
            await self.look(writer)
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self, writer: Writer) -> None:
        """Sees what holds now, and tells of what has changed."""
        self._compare(self._store, await self._cannot_write(writer))
        limit = self._disk_limit - (DISK_SLACK_PERCENT if self._disk.since is not None else 0.0)
        self._compare(self._disk, self._disk_usage() > limit)
        if self._store.since is not None:
            self._tell_live()
        if self._waiting:
            await self._commit(writer)

    async def _cannot_write(self, writer: Writer) -> bool:
        """A transaction that changes nothing shows a locked store, also when nobody else writes; it takes one that
        writes to see whether a full disk has room again.
        """
        probe: Operation[None] = Operation(lambda found, now: Changes(None))
        try:
            await writer.submit(probe if writer.is_healthy else _touch(self._feed.projects[0]))
        except (Unavailable, DeadlineExceeded):
            return True
        return not writer.is_healthy

    def _compare(self, condition: _Condition, holds: bool) -> None:
        now = self._clock.now()
        if holds == (condition.since is not None):
            return
        since = condition.since if condition.since is not None else now
        condition.since = now if holds else None
        severity, message = ("critical", condition.raised) if holds else ("info", condition.cleared)
        log.warning("alert", code=condition.code, holds=holds, message=message)
        self._waiting.append(_Alert(bodies.AlertBody(condition.code, severity, message, since), now))
        self._leave(len(self._waiting) - MAX_WAITING)

    def _tell_live(self) -> None:
        for alert in self._waiting[self._told :]:
            for event in alert.events(self._feed.projects):
                self._feed.publish_live(event)
        self._told = len(self._waiting)

    def _leave(self, count: int) -> None:
        """The first so many wait no more."""
        if count > 0:
            self._waiting = self._waiting[count:]
            self._told = max(0, self._told - count)

    async def _commit(self, writer: Writer) -> None:
        while self._waiting:
            try:
                await writer.submit(_tell(self._waiting[0].events(self._feed.projects)))
            except (Unavailable, DeadlineExceeded) as problem:
                log.warning("alerts_postponed", reason=problem.message)
                # On a full disk the small write that looks for room may find it, and these do not.
                self._tell_live()
                return
            self._leave(1)


def _tell(events: list[rows.Event]) -> Operation[None]:
    return Operation(lambda found, now: Changes(None, events=events))


def _touch(project_id: str) -> Operation[None]:
    """Writes a row as it is."""

    def decide(found: Found, now: int) -> Changes[None]:
        feed = found.get(rows.Feed, project_id)
        return Changes(None, rows=[] if feed is None else [rows.copy_of(feed)])

    return Operation(decide, keys=[Key(rows.Feed, (project_id,))])

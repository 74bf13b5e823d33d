"""What is told live, and what is committed, while the store takes all, nothing, or only what is small."""

from collections.abc import Sequence
from typing import Any

import msgspec

from ao_server.engine.alerts import Alerts
from ao_server.engine.clock import SystemClock
from ao_server.errors import Unavailable
from ao_server.store import rows
from ao_server.store.changes import Changes, Operation
from ao_server.store.rows import Event

PROJECT = "project_default"


class Watched:
    """A feed of one project: keeps what was published live."""

    projects: Sequence[str] = (PROJECT,)

    def __init__(self) -> None:
        self.live: list[Event] = []

    def publish_live(self, event: Event) -> None:
        self.live.append(event)


class Rows:
    """What the decisions find."""

    selected: Sequence[tuple[Any, ...]] = ()

    def get(self, row: type[Any], *key: str | int) -> Any:
        return rows.Feed(project_id=PROJECT, feed_id="f")


class Disk:
    """A writer on a disk that takes nothing at all (`is_away`), or nothing but changes of what is there (`is_full`)."""

    def __init__(self) -> None:
        self.is_away = False
        self.is_full = False
        self.is_healthy = True
        self.committed: list[Event] = []

    async def submit(self, operation: Operation[Any]) -> Any:
        changes: Changes[Any] = operation.decide(Rows(), 0)
        if self.is_away or (self.is_full and changes.events):
            self.is_healthy = False
            raise Unavailable("the store cannot be written now")
        self.is_healthy = True
        self.committed += changes.events


class Watching:
    """Alerts over the two doubles."""

    def __init__(self) -> None:
        self.feed, self.disk = Watched(), Disk()
        feed: Any = self.feed
        self.usage = 0.0
        self.alerts = Alerts(feed, SystemClock(), lambda: self.usage, 90.0)

    async def look(self) -> None:
        writer: Any = self.disk
        await self.alerts.look(writer)


def said(events: Sequence[Event]) -> list[tuple[str, str]]:
    bodies = [msgspec.json.decode(event.body) for event in events]
    return [(body["code"], body["severity"]) for body in bodies]


async def test_while_the_store_takes_it_an_alert_is_committed_and_not_told_live() -> None:
    watching = Watching()
    watching.usage = 95.0
    await watching.look()
    assert said(watching.disk.committed) == [("disk_almost_full", "critical")]
    assert watching.feed.live == []


async def test_on_a_full_disk_that_takes_what_is_small_an_alert_is_told_live_once_and_committed_later() -> None:
    watching = Watching()
    watching.usage, watching.disk.is_full = 100.0, True
    for _ in range(3):
        await watching.look()
    assert said(watching.feed.live) == [("disk_almost_full", "critical")]
    watching.usage, watching.disk.is_full = 50.0, False
    await watching.look()
    assert said(watching.disk.committed) == [("disk_almost_full", "critical"), ("disk_almost_full", "info")]
    assert len(watching.feed.live) == 1


async def test_while_the_store_is_away_each_alert_is_told_live_once_and_committed_later() -> None:
    watching = Watching()
    watching.disk.is_away = True
    await watching.look()
    watching.usage = 95.0
    await watching.look()
    await watching.look()
    assert said(watching.feed.live) == [("store_unavailable", "critical"), ("disk_almost_full", "critical")]
    watching.disk.is_away = False
    await watching.look()
    assert said(watching.disk.committed) == [
        ("store_unavailable", "critical"),
        ("disk_almost_full", "critical"),
        ("store_unavailable", "info"),
    ]
    assert len(watching.feed.live) == 2


async def test_no_more_than_a_bound_waits_and_what_waits_is_told_once() -> None:
    watching = Watching()
    watching.disk.is_full = True
    for number in range(300):
        watching.usage = 100.0 if number % 2 == 0 else 0.0
        await watching.look()
    assert len(watching.feed.live) == 300
    watching.disk.is_full = False
    await watching.look()
    assert len(watching.disk.committed) == 100 and len(watching.feed.live) == 300


async def test_the_bound_counts_alerts_and_not_the_projects_that_each_is_for() -> None:
    watching = Watching()
    watching.feed.projects = [f"project_{number}" for number in range(300)]
    watching.disk.is_full = True
    watching.usage = 100.0
    await watching.look()
    assert {event.project_id for event in watching.feed.live} == set(watching.feed.projects)
    watching.disk.is_full = False
    await watching.look()
    assert [event.project_id for event in watching.disk.committed] == watching.feed.projects

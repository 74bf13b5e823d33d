"""What is kept for a time is taken out wholly, in portions, and its room goes back to the disk."""

import asyncio
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ao_server.engine import audit, pruning
from ao_server.engine.ids import Ids
from ao_server.engine.pruning import Pruning
from ao_server.store import events, rows
from ao_server.store.changes import Changes, Found, Operation
from tests.store.fleet_world import PROJECT, World

WEEK = 7 * 86_400.0
YEAR = 365 * 86_400.0


async def write(world: World, new: Sequence[Any], told: Sequence[rows.Event] = ()) -> None:
    def decide(found: Found, now: int) -> Changes[None]:
        return Changes(None, list(new), events=list(told))

    world.submit(Operation(decide))
    await world.settle()


def idempotency_key(number: int, age: float, now: int) -> rows.IdempotencyKey:
    created_at = now - round(age * 1e6)
    return rows.IdempotencyKey(
        project_id=PROJECT, key=f"key {number}", request_hash="h", answer="a" * 500, created_at=created_at
    )


def credential(number: int, forgotten_at: int | None) -> rows.Credential:
    kind = "key" if forgotten_at is None else "token"
    return rows.Credential(
        project_id=PROJECT,
        id=f"{kind}_{number}",
        kind=kind,
        name="n",
        scopes="admin",
        sha256=f"{kind}{number}",
        created_at=0,
        forgotten_at=forgotten_at,
    )


def record(name: str, time: int) -> rows.AuditRecord:
    return audit.row(audit.Entry(PROJECT, "key_1", name, "RevokeKey", "success"), Ids(), time)


def event(timestamp: int) -> rows.Event:
    return rows.Event(project_id=PROJECT, position=0, type="t", timestamp=timestamp, body="{}")


async def prune_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = asyncio.Event()

    async def sleep(seconds: float) -> None:
        ended.set()
        raise asyncio.CancelledError

    monkeypatch.setattr("ao_server.engine.pruning.asyncio.sleep", sleep)
    running = asyncio.get_running_loop().create_task(Pruning(world.reader, world.clock, WEEK, YEAR).run(world.writer))
    while not ended.is_set():
        if world.writer.has_work:
            world.writer.step()
        await asyncio.wait([running], timeout=0.001)


def count(path: Path, what: str) -> Any:
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
        return connection.execute(what).fetchone()[0]


async def test_all_that_is_old_is_taken_out_in_one_go_and_nothing_else(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning, "PRUNED_AT_ONCE", 10)
    now = world.clock.now()
    await write(world, [idempotency_key(number, 86_400.0 * 1.1, now) for number in range(95)])
    await write(world, [idempotency_key(number, 3_600.0, now) for number in range(100, 107)])
    ages = {"older": 366 * 86_400.0, "old": 365.1 * 86_400.0, "young": 364.9 * 86_400.0}
    await write(world, [record(name, now - round(age * 1e6)) for name, age in ages.items()])
    minute = now // 60_000_000
    await write(world, [rows.Rollup(project_id=PROJECT, minute=minute - 33 * 1_440 - each) for each in range(35)])
    await write(world, [rows.Rollup(project_id=PROJECT, minute=minute)])
    await write(world, [credential(number, now - 1) for number in range(25)])
    await write(world, [credential(99, now + 3_600_000_000), credential(98, None)])
    monkeypatch.setattr(pruning, "PORTIONS_AT_ONCE", 2)
    long_ago = now - round(2 * WEEK * 1e6)
    for _ in range(5):
        await write(world, [], [event(long_ago) for _ in range(9)])
    await write(world, [], [event(long_ago), event(now), event(long_ago)])
    await write(world, [], [event(long_ago)])
    await prune_once(world, monkeypatch)
    path = tmp_path / "ao.db"
    assert count(path, "SELECT count(*) FROM idempotency_keys") == 7
    assert count(path, "SELECT count(*) FROM rollups") == 1
    assert count(path, "SELECT count(*) FROM credentials WHERE id IN ('token_99', 'key_98')") == 2
    assert count(path, "SELECT count(*) FROM credentials WHERE kind = 'token'") == 1
    assert count(path, "SELECT count(*) || max(actor_name) FROM audit_records") == "1young"
    # What is fresh is kept, with all that was written beside it, and nothing behind it goes before it.
    assert [each.position for each in await events.after(world.reader, PROJECT, 45, 10)] == [46, 47, 48, 49]
    assert count(path, "SELECT count(*) FROM event_portions") == 2
    assert count(path, "SELECT pruned FROM feeds") == 45


async def test_the_room_of_what_was_taken_out_goes_back_to_the_disk(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ao_server.store.database.KEPT_PAGES", 20)
    monkeypatch.setattr("ao_server.store.database.PAGES_AT_ONCE", 50)
    monkeypatch.setattr(pruning, "PRUNED_AT_ONCE", 100)
    now = world.clock.now()
    await write(world, [idempotency_key(number, 86_400.0 * 1.1, now) for number in range(2_000)])
    path = tmp_path / "ao.db"
    before = count(path, "PRAGMA page_count")
    await prune_once(world, monkeypatch)
    assert count(path, "PRAGMA freelist_count") <= 20
    assert count(path, "PRAGMA page_count") < before - 200

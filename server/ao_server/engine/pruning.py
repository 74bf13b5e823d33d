"""What is kept for a time only: events, idempotency keys, roll-ups, access tokens, audit records."""

import asyncio
from typing import Final

import structlog

from ao_server.engine import audit
from ao_server.engine.clock import Clock
from ao_server.engine.counters import MICROSECONDS_A_MINUTE
from ao_server.engine.idempotency import KEPT_MICROSECONDS
from ao_server.errors import DeadlineExceeded, Unavailable
from ao_server.store import events, retention, rows
from ao_server.store.changes import Changes, Deletion, Found, Key, Operation
from ao_server.store.id_times import first_at
from ao_server.store.reader import Reader
from ao_server.store.writer import Writer

log = structlog.get_logger("ao_server.engine.pruning")

MOST_SECONDS: Final = 60.0
PRUNED_AT_ONCE: Final = 2_000
# Of events: one holds up to 64 of them, or 64 KiB.
PORTIONS_AT_ONCE: Final = 200
# A little more than the longest period that metrics are shown for.
ROLLUP_MINUTES: Final = 32 * 24 * 60


class Pruning:
    """Takes out what is older than its time, in portions with others' writes between, until nothing of it is left."""

    def __init__(self, reader: Reader, clock: Clock, event_retention: float, audit_retention: float) -> None:
        """Both in seconds."""
        self._reader = reader
        self._clock = clock
        self._event_retention = event_retention
        self._audit_retention = audit_retention

    async def run(self, writer: Writer) -> None:
        """Runs for as long as the server does."""
        while True:
            try:
                for feed in await events.feeds(self._reader):
                    await self._prune_events(writer, feed.project_id)
                    await self._prune_by_age(writer, feed.project_id)
            except (Unavailable, DeadlineExceeded) as problem:
                log.warning("pruning_postponed", reason=problem.message)
            await asyncio.sleep(min(MOST_SECONDS, self._event_retention / 4))

    async def _prune_events(self, writer: Writer, project_id: str) -> None:
        oldest = self._clock.now() - round(self._event_retention * 1e6)
        while True:
            until = await events.older_than(self._reader, project_id, oldest, PORTIONS_AT_ONCE)
            if until is None:
                return
            await writer.submit(_prune_events(project_id, until))

    async def _prune_by_age(self, writer: Writer, project_id: str) -> None:
        now = self._clock.now()
        # An id begins with its time.
        oldest_record = first_at(audit.PREFIX, now - round(self._audit_retention * 1e6))
        by_age = [
            Deletion(rows.AuditRecord, project_id, "id", oldest_record, PRUNED_AT_ONCE),
            Deletion(rows.IdempotencyKey, project_id, "created_at", now - KEPT_MICROSECONDS, PRUNED_AT_ONCE),
            Deletion(rows.Rollup, project_id, "minute", now // MICROSECONDS_A_MINUTE - ROLLUP_MINUTES, PRUNED_AT_ONCE),
            Deletion(rows.Credential, project_id, "forgotten_at", now, PRUNED_AT_ONCE),
        ]
        for deletion in by_age:
            while await retention.has_any(self._reader, deletion):
                await writer.submit(_delete(deletion))


def _prune_events(project_id: str, until: int) -> Operation[None]:
    """Takes out events up to a position; a cursor in front of it has expired."""

    def decide(found: Found, now: int) -> Changes[None]:
        feed = found.get(rows.Feed, project_id)
        if feed is None or feed.pruned >= until:
            return Changes(None)
        after = rows.copy_of(feed)
        after.pruned = until
        old = Deletion(rows.EventPortion, project_id, "last", until, PORTIONS_AT_ONCE)
        return Changes(None, [after], deletions=[old])

    return Operation(decide, keys=[Key(rows.Feed, (project_id,))])


def _delete(deletion: Deletion) -> Operation[None]:
    return Operation(lambda found, now: Changes(None, deletions=[deletion]))

"""Creates that may be repeated: the first answer is kept with its key, in the transaction that made what it names.

A concurrent twin needs no rule of its own: writes are decided one after the other, so it finds the first one's answer.
A first try that is refused writes nothing, its key included.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import msgspec

from ao_server.errors import Conflict
from ao_server.store import rows
from ao_server.store.changes import Changes, Found, Key, Operation

KEPT_MICROSECONDS: Final = 24 * 3600 * 1_000_000

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Idempotency:
    """A key, and the hash of the method and request that it is used for."""

    project_id: str
    key: str
    request_hash: str


class Once(msgspec.Struct, Generic[Answer], frozen=True):
    """The answer of a create, and whether it was given before."""

    answer: Answer
    is_replayed: bool


def once(operation: Operation[Answer], idempotency: Idempotency | None, type_: Any) -> Operation[Once[Answer]]:
    """The same create, but with a key done only once. `type_` is the type of its answer, as msgspec decodes it.

    Conflict (`idempotency_conflict`) when the key was used for another request.
    """

    def decide(found: Found, now: int) -> Changes[Once[Answer]]:
        kept = None
        if idempotency is not None:
            kept = found.get(rows.IdempotencyKey, idempotency.project_id, idempotency.key)
        if idempotency is not None and kept is not None and kept.created_at > now - KEPT_MICROSECONDS:
            if kept.request_hash != idempotency.request_hash:
                raise Conflict("the idempotency key was used for another request", code="idempotency_conflict")
            return Changes(Once(msgspec.json.decode(kept.answer, type=type_), is_replayed=True))
        changes = operation.decide(found, now)
        if idempotency is not None:
            row = rows.IdempotencyKey(
                project_id=idempotency.project_id,
                key=idempotency.key,
                request_hash=idempotency.request_hash,
                answer=msgspec.json.encode(changes.answer).decode(),
                created_at=now,
            )
            changes.rows.append(row)
        answer = Once(changes.answer, is_replayed=False)
        return Changes(answer, changes.rows, changes.events)

    def delivered(once: Once[Answer]) -> None:
        if operation.delivered is not None and not once.is_replayed:
            operation.delivered(once.answer)

    keys = list(operation.keys)
    if idempotency is not None:
        keys.append(Key(rows.IdempotencyKey, (idempotency.project_id, idempotency.key)))
    return Operation(decide, keys=keys, selection=operation.selection, delivered=delivered)

"""API keys, OAuth clients and their tokens: made, rotated, ended."""

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from agent_orchestration.scopes import RUNNER, SCOPES
from ao_server.engine.ids import Ids
from ao_server.engine.secrets import beginning, sha256
from ao_server.errors import Conflict, Invalid, NotFound
from ao_server.store import rows
from ao_server.store.changes import Changes, Found, Key, Operation

# Beyond their end, tokens are kept for so long (microseconds): a refused one is still known for whose it was.
KEPT_MICROSECONDS: Final = 24 * 3600 * 1_000_000
# How ids begin.
PREFIXES: Final = {"key": "key", "client": "client", "token": "token"}


class NewCredential(msgspec.Struct, frozen=True):
    """A request for a credential. `expires_in` and `token_lifetime` in microseconds, `expires_at` since 1970."""

    project_id: str
    kind: str
    name: str
    scopes: Sequence[str]
    expires_at: int | None = None
    expires_in: int | None = None
    agent_id: str | None = None
    agent_type: str | None = None
    per_hour: int | None = None
    per_minute: int | None = None
    client_id: str | None = None
    token_lifetime: int | None = None


def check(new: NewCredential) -> None:
    """Invalid when it asks for what cannot be."""
    check_scopes(new.scopes)
    if new.expires_at is not None and new.expires_in is not None:
        raise Invalid.field("expires_in", "cannot be given together with expires_at")
    if new.agent_id is not None and new.agent_type is not None:
        raise Invalid.field("agent_type", "cannot be given together with agent_id")
    if (new.agent_id or new.agent_type) is not None and set(new.scopes) != {RUNNER}:
        raise Invalid.field("scopes", f"the key of a runner has the scope {RUNNER} and no other")


def check_scopes(scopes: Sequence[str]) -> None:
    """Invalid when one of them is unknown."""
    for index, scope in enumerate(scopes):
        if scope not in SCOPES:
            raise Invalid.field(f"scopes[{index}]", f"there is no scope {scope!r}, only {', '.join(SCOPES)}")


def create(new: NewCredential, secret: str, ids: Ids) -> Operation[rows.Credential]:
    """Makes a credential with this secret. Invalid when it is to be bound to an agent that is not there, or ends in the
    past.
    """
    keys = [] if new.agent_id is None else [Key(rows.Agent, (new.project_id, new.agent_id))]

    def decide(found: Found, now: int) -> Changes[rows.Credential]:
        if new.agent_id is not None:
            agent = found.get(rows.Agent, new.project_id, new.agent_id)
            if agent is None or agent.deleted_at is not None:
                raise Invalid.field("agent_id", "there is no such agent")
        if new.expires_at is not None and new.expires_at <= now:
            raise Invalid.field("expires_at", "must lie ahead")
        row = record(new, secret, ids, now)
        return Changes(row, rows=[row])

    return Operation(decide, keys=keys)


def record(new: NewCredential, secret: str, ids: Ids, now: int) -> rows.Credential:
    """The row of a new credential."""
    identifier, created_at = ids.new(PREFIXES[new.kind], now)
    expires_at = new.expires_at if new.expires_in is None else now + new.expires_in
    return rows.Credential(
        project_id=new.project_id,
        id=identifier,
        kind=new.kind,
        name=new.name,
        scopes=" ".join(scope for scope in SCOPES if scope in new.scopes),
        sha256=sha256(secret),
        created_at=created_at,
        prefix=beginning(secret),
        expires_at=expires_at,
        agent_id=new.agent_id,
        agent_type=new.agent_type,
        per_hour=new.per_hour,
        per_minute=new.per_minute,
        client_id=new.client_id,
        token_lifetime=new.token_lifetime,
        forgotten_at=None if new.kind != "token" or expires_at is None else expires_at + KEPT_MICROSECONDS,
    )


def update(
    kind: str, project_id: str, credential_id: str, name: str | None, per_hour: int | None, per_minute: int | None
) -> Operation[rows.Credential]:
    """Changes what is given; None leaves it. NotFound, or Conflict when it is revoked."""

    def change(row: rows.Credential, now: int) -> None:
        if name is not None:
            row.name = name
        if per_hour is not None:
            row.per_hour = per_hour
        if per_minute is not None:
            row.per_minute = per_minute

    return _changed(kind, project_id, credential_id, change)


def rotate(kind: str, project_id: str, credential_id: str, secret: str, overlap: int) -> Operation[rows.Credential]:
    """Gives it a new secret; the old one stays good for `overlap` microseconds. NotFound, or Conflict when it is
    revoked or expired.
    """

    def change(row: rows.Credential, now: int) -> None:
        if row.expires_at is not None and row.expires_at <= now:
            raise Conflict("it has expired")
        row.previous_sha256, row.previous_expires_at = row.sha256, now + overlap
        row.sha256, row.prefix = sha256(secret), beginning(secret)

    return _changed(kind, project_id, credential_id, change)


def revoke(kind: str, project_id: str, credential_id: str) -> Operation[rows.Credential]:
    """Ends it for good; again, it stays as it is. NotFound."""

    def decide(found: Found, now: int) -> Changes[rows.Credential]:
        before = _existing(found, kind, project_id, credential_id)
        if before.revoked_at is not None:
            return Changes(before)
        after = rows.copy_of(before)
        after.revoked_at = now
        return Changes(after, rows=[after])

    return Operation(decide, keys=[Key(rows.Credential, (project_id, credential_id))])


def _changed(
    kind: str, project_id: str, credential_id: str, change: Callable[[rows.Credential, int], None]
) -> Operation[rows.Credential]:
    def decide(found: Found, now: int) -> Changes[rows.Credential]:
        after = rows.copy_of(_existing(found, kind, project_id, credential_id))
        if after.revoked_at is not None:
            raise Conflict("it is revoked")
        change(after, now)
        return Changes(after, rows=[after])

    return Operation(decide, keys=[Key(rows.Credential, (project_id, credential_id))])


def _existing(found: Found, kind: str, project_id: str, credential_id: str) -> rows.Credential:
    row: Any = found.get(rows.Credential, project_id, credential_id)
    if row is None or row.kind != kind:
        raise NotFound(f"there is no such {kind}")
    return row

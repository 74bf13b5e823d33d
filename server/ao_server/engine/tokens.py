"""Access tokens of OAuth clients: given out against the client's secret, ended before their time."""

import hmac
from collections.abc import Sequence
from typing import Final

from agent_orchestration.scopes import SCOPES, holds
from ao_server.engine import credentials
from ao_server.engine.credentials import NewCredential
from ao_server.engine.ids import Ids
from ao_server.engine.secrets import sha256
from ao_server.errors import Invalid, Unauthorized
from ao_server.store import rows
from ao_server.store.changes import Changes, Found, Key, Operation

DEFAULT_LIFETIME: Final = 3600 * 1_000_000
# One answer, whichever of the two is wrong.
_REFUSED: Final = "the client or its secret is not valid"


def identified(client: rows.Credential | None, client_id: str, client_secret: str, now: int) -> rows.Credential:
    """The client, if it has this id and this secret. Unauthorized when it has not, or not any more."""
    if client is None or client.kind != "client" or client.id != client_id or client.revoked_at is not None:
        raise Unauthorized(_REFUSED)
    hashed = sha256(client_secret)
    if not hmac.compare_digest(hashed, client.sha256):
        is_previous = client.previous_sha256 is not None and hmac.compare_digest(hashed, client.previous_sha256)
        if not is_previous or now >= (client.previous_expires_at or 0):
            raise Unauthorized(_REFUSED)
    return client


def issue(
    client: rows.Credential, client_secret: str, scopes: Sequence[str], token: str, ids: Ids
) -> Operation[rows.Credential]:
    """Makes this token, with these of the client's scopes; without any, with all of them.

    Unauthorized as for `identified`; Invalid for a scope that the client does not have.
    """

    def decide(found: Found, now: int) -> Changes[rows.Credential]:
        current = identified(_found(found, client), client.id, client_secret, now)
        held = current.scopes.split()
        for scope in scopes:
            if scope not in SCOPES or not holds(held, scope):
                raise Invalid.field("scope", "the client does not have all of these scopes")
        new = NewCredential(
            current.project_id,
            "token",
            current.name,
            scopes or held,
            expires_in=current.token_lifetime or DEFAULT_LIFETIME,
            per_hour=current.per_hour,
            per_minute=current.per_minute,
            client_id=current.id,
        )
        row = credentials.record(new, token, ids, now)
        return Changes(row, rows=[row])

    return Operation(decide, keys=[_key(client)])


def revoke(client: rows.Credential, client_secret: str, token: rows.Credential | None) -> Operation[None]:
    """Ends a token of the client; any other stays as it is. Unauthorized as for `identified`."""
    keys = [_key(client)] if token is None else [_key(client), _key(token)]

    def decide(found: Found, now: int) -> Changes[None]:
        current = identified(_found(found, client), client.id, client_secret, now)
        before = None if token is None else _found(found, token)
        if before is None or before.client_id != current.id or before.revoked_at is not None:
            return Changes(None)
        after = rows.copy_of(before)
        after.revoked_at = now
        return Changes(None, rows=[after])

    return Operation(decide, keys=keys)


def _found(found: Found, row: rows.Credential) -> rows.Credential | None:
    return found.get(rows.Credential, row.project_id, row.id)


def _key(row: rows.Credential) -> Key:
    return Key(rows.Credential, (row.project_id, row.id))

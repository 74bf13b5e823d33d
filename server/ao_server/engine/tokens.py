"""Access tokens of OAuth clients: given out against the client's secret, ended before their time."""

import hmac
from collections.abc import Sequence
from typing import Final

from ao_server.engine import credentials
from ao_server.engine.credentials import NewCredential
from ao_server.engine.ids import Ids
from ao_server.engine.secrets import sha256
from ao_server.errors import Invalid, Unauthorized
from ao_server.store import rows
from ao_server.store.changes import Changes, Found, Key, Operation

DEFAULT_LIFETIME: Final = 3600 * 1_000_000


def issue(
    client: rows.Credential, client_secret: str, scopes: Sequence[str], token: str, ids: Ids
) -> Operation[rows.Credential]:
    """Makes this token, with all scopes of the client or some of them.

    Unauthorized when the secret is not the client's, or not any more; Invalid for a scope that it does not have.
    """

    def decide(found: Found, now: int) -> Changes[rows.Credential]:
        current = _client(found, client, client_secret, now)
        held = current.scopes.split()
        missing = [scope for scope in scopes if scope not in held]
        if missing:
            raise Invalid.field("scope", f"the client does not have the scope {missing[0]}")
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
    """Ends a token of the client. Unauthorized as for `issue`."""
    keys = [_key(client)] if token is None else [_key(client), _key(token)]

    def decide(found: Found, now: int) -> Changes[None]:
        current = _client(found, client, client_secret, now)
        before = None if token is None else found.get(rows.Credential, token.project_id, token.id)
        if before is None or before.client_id != current.id or before.revoked_at is not None:
            return Changes(None)
        after = rows.copy_of(before)
        after.revoked_at = now
        return Changes(None, rows=[after])

    return Operation(decide, keys=keys)


def _client(found: Found, client: rows.Credential, client_secret: str, now: int) -> rows.Credential:
    current = found.get(rows.Credential, client.project_id, client.id)
    if current is None or current.kind != "client" or current.revoked_at is not None:
        raise Unauthorized("the client is not known")
    hashed = sha256(client_secret)
    if hmac.compare_digest(hashed, current.sha256):
        return current
    is_previous = current.previous_sha256 is not None and hmac.compare_digest(hashed, current.previous_sha256)
    if not is_previous or now >= (current.previous_expires_at or 0):
        raise Unauthorized("the client's secret is not valid")
    return current


def _key(row: rows.Credential) -> Key:
    return Key(rows.Credential, (row.project_id, row.id))

"""Credentials as messages. Secrets are in none of them but where they are passed in."""

from agent_orchestration.v1 import keys_pb2, oauth_pb2
from ao_server.api import messages
from ao_server.store import rows


def key(row: rows.Credential, secret: str | None = None) -> keys_pb2.ApiKey:
    """An API key."""
    message = messages.filled(keys_pb2.ApiKey, row, key=secret)
    message.scopes.extend(row.scopes.split())
    _set_limits(message, row)
    return message


def client(row: rows.Credential, secret: str | None = None) -> oauth_pb2.OAuthClient:
    """An OAuth client."""
    message = messages.filled(oauth_pb2.OAuthClient, row, client_secret=secret)
    message.client_id = row.id
    message.scopes.extend(row.scopes.split())
    _set_limits(message, row)
    return message


def _set_limits(message: keys_pb2.ApiKey | oauth_pb2.OAuthClient, row: rows.Credential) -> None:
    if row.per_hour is not None:
        message.rate_limits.per_hour = row.per_hour
    if row.per_minute is not None:
        message.rate_limits.per_minute = row.per_minute

"""What KeyService and OAuthClientService do alike: credentials of one kind, in the project of the call."""

from dataclasses import dataclass
from typing import Final

from google.protobuf.message import Message

from agent_orchestration.v1 import keys_pb2, oauth_pb2
from ao_server.api import calls, idempotency
from ao_server.api.pages import Asked
from ao_server.engine import credentials, secrets
from ao_server.engine.credentials import NewCredential
from ao_server.engine.idempotency import once
from ao_server.engine.ids import Ids
from ao_server.errors import NotFound
from ao_server.store import credentials as stored
from ao_server.store import rows
from ao_server.store.reader import Page, Reader
from ao_server.store.writer import Writer

# Microseconds for which an old secret stays good.
DEFAULT_OVERLAP: Final = 3600 * 1_000_000


_Rotate = keys_pb2.RotateKeyRequest | oauth_pb2.RotateOAuthClientSecretRequest


@dataclass(frozen=True, slots=True)
class Shown:
    """A credential with the secret that is shown once; None in the answer to a repeat."""

    row: rows.Credential
    secret: str | None
    is_replayed: bool = False


class Credentials:
    """Those of one kind. `prefix` is how their secrets begin."""

    def __init__(self, kind: str, prefix: str, writer: Writer, reader: Reader, ids: Ids) -> None:
        self.kind = kind
        self._prefix = prefix
        self._writer = writer
        self._reader = reader
        self._ids = ids

    async def create(self, new: NewCredential, request: Message) -> Shown:
        """Makes one, once for the idempotency key of the request. Invalid, or Conflict for a key used otherwise."""
        credentials.check(new)
        secret = secrets.new(self._prefix)
        operation = once(credentials.create(new, secret, self._ids), idempotency.of(request), rows.Credential)
        created = await self._writer.write(operation)
        return Shown(created.answer, None if created.is_replayed else secret, created.is_replayed)

    async def get(self, credential_id: str) -> rows.Credential:
        """One of the project's. NotFound."""
        found = await stored.get(self._reader, self.kind, calls.current().project_id, credential_id)
        if found is None:
            raise NotFound(f"there is no such {self.kind}")
        return found

    async def page(self, asked: Asked) -> Page[rows.Credential]:
        """A page of the project's, newest first."""
        project_id = calls.current().project_id
        return await stored.page(self._reader, self.kind, project_id, page=asked.page, limit=asked.limit)

    async def rotate(self, credential_id: str, request: _Rotate) -> Shown:
        """Gives one a new secret; the request may name an overlap. NotFound, or Conflict when it is revoked."""
        overlap = request.overlap.ToMicroseconds() if request.HasField("overlap") else DEFAULT_OVERLAP
        secret = secrets.new(self._prefix)
        operation = credentials.rotate(self.kind, calls.current().project_id, credential_id, secret, overlap)
        return Shown(await self._writer.write(operation), secret)

    async def revoke(self, credential_id: str) -> rows.Credential:
        """Ends one for good. NotFound."""
        return await self._writer.write(credentials.revoke(self.kind, calls.current().project_id, credential_id))


def limits_of(limits: keys_pb2.RateLimits) -> tuple[int | None, int | None]:
    """Calls an hour and a minute; None where nothing is said."""
    return (
        limits.per_hour if limits.HasField("per_hour") else None,
        limits.per_minute if limits.HasField("per_minute") else None,
    )

"""KeyService."""

from typing import Any, Final

from agent_orchestration.v1 import keys_pb2, keys_pb2_grpc
from ao_server.api import calls, idempotency, pages
from ao_server.api.credential_messages import key
from ao_server.engine import credentials, secrets
from ao_server.engine.credentials import NewCredential
from ao_server.engine.idempotency import once
from ao_server.engine.ids import Ids
from ao_server.errors import NotFound
from ao_server.store import credentials as stored
from ao_server.store import rows
from ao_server.store.reader import Reader
from ao_server.store.writer import Writer

KIND: Final = "key"
DEFAULT_OVERLAP: Final = 3600 * 1_000_000


class KeyServicer(keys_pb2_grpc.KeyServiceServicer):
    """Makes API keys, shows and ends them."""

    def __init__(self, writer: Writer, reader: Reader, ids: Ids) -> None:
        self._writer = writer
        self._reader = reader
        self._ids = ids

    async def CreateKey(self, request: keys_pb2.CreateKeyRequest, context: Any) -> keys_pb2.CreateKeyResponse:
        """Makes a key."""
        limits = request.rate_limits
        new = NewCredential(
            project_id=calls.current().project_id,
            kind=KIND,
            name=request.name,
            scopes=request.scopes,
            expires_at=request.expires_at.ToMicroseconds() if request.HasField("expires_at") else None,
            expires_in=request.expires_in.ToMicroseconds() if request.HasField("expires_in") else None,
            agent_id=request.agent_id if request.HasField("agent_id") else None,
            agent_type=request.agent_type if request.HasField("agent_type") else None,
            per_hour=limits.per_hour if limits.HasField("per_hour") else None,
            per_minute=limits.per_minute if limits.HasField("per_minute") else None,
        )
        credentials.check(new)
        secret = secrets.new(secrets.KEY)
        operation = once(credentials.create(new, secret, self._ids), idempotency.of(request), rows.Credential)
        created = await self._writer.write(operation)
        data = key(created.answer, None if created.is_replayed else secret)
        return keys_pb2.CreateKeyResponse(data=data, idempotent_replayed=created.is_replayed)

    async def GetKey(self, request: keys_pb2.GetKeyRequest, context: Any) -> keys_pb2.GetKeyResponse:
        """Shows one key."""
        found = await stored.get(self._reader, KIND, calls.current().project_id, request.key_id)
        if found is None:
            raise NotFound("there is no such key")
        return keys_pb2.GetKeyResponse(data=key(found))

    async def ListKeys(self, request: keys_pb2.ListKeysRequest, context: Any) -> keys_pb2.ListKeysResponse:
        """Lists keys."""
        asked = pages.of(request)
        project_id = calls.current().project_id
        found = await stored.page(self._reader, KIND, project_id, page=asked.page, limit=asked.limit)
        return keys_pb2.ListKeysResponse(data=map(key, found.rows), pagination=asked.pagination(found))

    async def UpdateKey(self, request: keys_pb2.UpdateKeyRequest, context: Any) -> keys_pb2.UpdateKeyResponse:
        """Changes a key's name and limits."""
        limits = request.rate_limits
        operation = credentials.update(
            KIND,
            calls.current().project_id,
            request.key_id,
            name=request.name if request.HasField("name") else None,
            per_hour=limits.per_hour if limits.HasField("per_hour") else None,
            per_minute=limits.per_minute if limits.HasField("per_minute") else None,
        )
        return keys_pb2.UpdateKeyResponse(data=key(await self._writer.write(operation)))

    async def RotateKey(self, request: keys_pb2.RotateKeyRequest, context: Any) -> keys_pb2.RotateKeyResponse:
        """Gives a key a new secret."""
        overlap = request.overlap.ToMicroseconds() if request.HasField("overlap") else DEFAULT_OVERLAP
        secret = secrets.new(secrets.KEY)
        operation = credentials.rotate(KIND, calls.current().project_id, request.key_id, secret, overlap)
        return keys_pb2.RotateKeyResponse(data=key(await self._writer.write(operation), secret))

    async def RevokeKey(self, request: keys_pb2.RevokeKeyRequest, context: Any) -> keys_pb2.RevokeKeyResponse:
        """Ends a key."""
        operation = credentials.revoke(KIND, calls.current().project_id, request.key_id)
        return keys_pb2.RevokeKeyResponse(data=key(await self._writer.write(operation)))

"""KeyService."""

from typing import Any

from agent_orchestration.v1 import keys_pb2, keys_pb2_grpc
from ao_server.api import calls, pages
from ao_server.api.credential_messages import key
from ao_server.api.credentials import Credentials, limits_of
from ao_server.engine import credentials, secrets
from ao_server.engine.credentials import NewCredential
from ao_server.engine.ids import Ids
from ao_server.store.reader import Reader
from ao_server.store.writer import Writer


class KeyServicer(keys_pb2_grpc.KeyServiceServicer):
    """Makes API keys, shows and ends them."""

    def __init__(self, writer: Writer, reader: Reader, ids: Ids) -> None:
        self._writer = writer
        self._keys = Credentials("key", secrets.KEY, writer, reader, ids)

    async def CreateKey(self, request: keys_pb2.CreateKeyRequest, context: Any) -> keys_pb2.CreateKeyResponse:
        """Makes a key."""
        per_hour, per_minute = limits_of(request.rate_limits)
        new = NewCredential(
            project_id=calls.current().project_id,
            kind=self._keys.kind,
            name=request.name,
            scopes=request.scopes,
            expires_at=request.expires_at.ToMicroseconds() if request.HasField("expires_at") else None,
            expires_in=request.expires_in.ToMicroseconds() if request.HasField("expires_in") else None,
            agent_id=request.agent_id if request.HasField("agent_id") else None,
            agent_type=request.agent_type if request.HasField("agent_type") else None,
            per_hour=per_hour,
            per_minute=per_minute,
        )
        made = await self._keys.create(new, request)
        return keys_pb2.CreateKeyResponse(data=key(made.row, made.secret), idempotent_replayed=made.is_replayed)

    async def GetKey(self, request: keys_pb2.GetKeyRequest, context: Any) -> keys_pb2.GetKeyResponse:
        """Shows one key."""
        return keys_pb2.GetKeyResponse(data=key(await self._keys.get(request.key_id)))

    async def ListKeys(self, request: keys_pb2.ListKeysRequest, context: Any) -> keys_pb2.ListKeysResponse:
        """Lists keys."""
        asked = pages.of(request)
        found = await self._keys.page(asked)
        return keys_pb2.ListKeysResponse(data=map(key, found.rows), pagination=asked.pagination(found))

    async def UpdateKey(self, request: keys_pb2.UpdateKeyRequest, context: Any) -> keys_pb2.UpdateKeyResponse:
        """Changes a key's name and limits."""
        per_hour, per_minute = limits_of(request.rate_limits)
        operation = credentials.update(
            self._keys.kind,
            calls.current().project_id,
            request.key_id,
            name=request.name if request.HasField("name") else None,
            per_hour=per_hour,
            per_minute=per_minute,
        )
        return keys_pb2.UpdateKeyResponse(data=key(await self._writer.write(operation)))

    async def RotateKey(self, request: keys_pb2.RotateKeyRequest, context: Any) -> keys_pb2.RotateKeyResponse:
        """Gives a key a new secret."""
        rotated = await self._keys.rotate(request.key_id, request)
        return keys_pb2.RotateKeyResponse(data=key(rotated.row, rotated.secret))

    async def RevokeKey(self, request: keys_pb2.RevokeKeyRequest, context: Any) -> keys_pb2.RevokeKeyResponse:
        """Ends a key."""
        return keys_pb2.RevokeKeyResponse(data=key(await self._keys.revoke(request.key_id)))

"""OAuthClientService."""

from typing import Any

from agent_orchestration.v1 import oauth_pb2, oauth_pb2_grpc
from ao_server.api import calls, pages
from ao_server.api.credential_messages import client
from ao_server.api.credentials import Credentials, limits_of
from ao_server.engine import secrets, tokens
from ao_server.engine.credentials import NewCredential
from ao_server.engine.ids import Ids
from ao_server.store.reader import Reader
from ao_server.store.writer import Writer


class OAuthClientServicer(oauth_pb2_grpc.OAuthClientServiceServicer):
    """Makes OAuth clients, shows and ends them."""

    def __init__(self, writer: Writer, reader: Reader, ids: Ids) -> None:
        self._clients = Credentials("client", secrets.CLIENT, writer, reader, ids)

    async def CreateOAuthClient(
        self, request: oauth_pb2.CreateOAuthClientRequest, context: Any
    ) -> oauth_pb2.CreateOAuthClientResponse:
        """Makes a client."""
        per_hour, per_minute = limits_of(request.rate_limits)
        has_lifetime = request.HasField("token_lifetime")
        new = NewCredential(
            project_id=calls.current().project_id,
            kind=self._clients.kind,
            name=request.name,
            scopes=request.scopes,
            per_hour=per_hour,
            per_minute=per_minute,
            token_lifetime=request.token_lifetime.ToMicroseconds() if has_lifetime else tokens.DEFAULT_LIFETIME,
        )
        made = await self._clients.create(new, request)
        data = client(made.row, made.secret)
        return oauth_pb2.CreateOAuthClientResponse(data=data, idempotent_replayed=made.is_replayed)

    async def GetOAuthClient(
        self, request: oauth_pb2.GetOAuthClientRequest, context: Any
    ) -> oauth_pb2.GetOAuthClientResponse:
        """Shows one client."""
        return oauth_pb2.GetOAuthClientResponse(data=client(await self._clients.get(request.client_id)))

    async def ListOAuthClients(
        self, request: oauth_pb2.ListOAuthClientsRequest, context: Any
    ) -> oauth_pb2.ListOAuthClientsResponse:
        """Lists clients."""
        asked = pages.of(request)
        found = await self._clients.page(asked)
        return oauth_pb2.ListOAuthClientsResponse(data=map(client, found.rows), pagination=asked.pagination(found))

    async def RotateOAuthClientSecret(
        self, request: oauth_pb2.RotateOAuthClientSecretRequest, context: Any
    ) -> oauth_pb2.RotateOAuthClientSecretResponse:
        """Gives a client a new secret."""
        rotated = await self._clients.rotate(request.client_id, request)
        return oauth_pb2.RotateOAuthClientSecretResponse(data=client(rotated.row, rotated.secret))

    async def RevokeOAuthClient(
        self, request: oauth_pb2.RevokeOAuthClientRequest, context: Any
    ) -> oauth_pb2.RevokeOAuthClientResponse:
        """Ends a client and its tokens."""
        return oauth_pb2.RevokeOAuthClientResponse(data=client(await self._clients.revoke(request.client_id)))

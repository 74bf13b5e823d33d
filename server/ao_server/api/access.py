"""AccessService."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

from agent_orchestration.rate_limits import RateLimits
from agent_orchestration.v1 import access_pb2, access_pb2_grpc
from ao_server.api import calls
from ao_server.engine import secrets, tokens
from ao_server.engine.access import Access, Principal
from ao_server.engine.clock import Clock
from ao_server.engine.ids import Ids
from ao_server.errors import RateLimited, Unauthorized, Unavailable
from ao_server.store import credentials, rows
from ao_server.store.reader import Reader
from ao_server.store.writer import Writer

# For how long a gateway that hears of no changes may believe what it was told.
CACHE_SECONDS: Final = 1.0
# Changes that a gateway has yet to hear of. Beyond it must forget all that it knows.
MOST_CHANGES: Final = 10_000


class AccessServicer(access_pb2_grpc.AccessServiceServicer):
    """Tells gateways whom a credential stands for, and gives out access tokens at their request."""

    def __init__(
        self, access: Access, limits: RateLimits, writer: Writer, reader: Reader, clock: Clock, ids: Ids
    ) -> None:
        self._access = access
        self._limits = limits
        self._writer = writer
        self._reader = reader
        self._clock = clock
        self._ids = ids

    async def Authenticate(
        self, request: access_pb2.AuthenticateRequest, context: Any
    ) -> access_pb2.AuthenticateResponse:
        """Says whom a credential stands for. A gateway's own stands for no user."""
        principal = await self._access.authenticate(request.credential)
        if principal.is_gateway:
            raise Unauthorized("the credential is not valid")
        response = access_pb2.AuthenticateResponse(principal=self._message(principal))
        response.cache_for.FromMicroseconds(round(CACHE_SECONDS * 1e6))
        return response

    async def WatchCredentials(
        self, request: access_pb2.WatchCredentialsRequest, context: Any
    ) -> AsyncIterator[access_pb2.WatchCredentialsResponse]:
        """Tells which credentials change."""
        changed: set[str] = set()
        wake = asyncio.Event()

        def told(credential_id: str) -> None:
            if len(changed) <= MOST_CHANGES:
                changed.add(credential_id)
            wake.set()

        with self._access.listening(told):
            yield access_pb2.WatchCredentialsResponse()
            while True:
                await wake.wait()
                wake.clear()
                if len(changed) > MOST_CHANGES:
                    raise Unavailable("too many credentials have changed")
                ids = list(changed)
                changed.clear()
                yield access_pb2.WatchCredentialsResponse(credential_ids=ids)

    async def IssueToken(self, request: access_pb2.IssueTokenRequest, context: Any) -> access_pb2.IssueTokenResponse:
        """Gives an access token to an OAuth client. It may ask as often as it may call with one."""
        client = await self._client(request)
        decision = await self._limits.take(client.id, client.per_hour, client.per_minute)
        if decision.is_refused:
            raise RateLimited(decision.message, retry_after=decision.retry_after)
        token = secrets.new(secrets.TOKEN)
        scopes = [scope for scope in request.scope.split(" ") if scope]
        row = await self._writer.write(tokens.issue(client, request.client_secret, scopes, token, self._ids))
        response = access_pb2.IssueTokenResponse(access_token=token, scopes=row.scopes.split())
        response.expires_in.FromMicroseconds(client.token_lifetime or tokens.DEFAULT_LIFETIME)
        return response

    async def RevokeToken(self, request: access_pb2.RevokeTokenRequest, context: Any) -> access_pb2.RevokeTokenResponse:
        """Ends an access token of an OAuth client."""
        client = await self._client(request)
        token = await credentials.by_hash(self._reader, secrets.sha256(request.token))
        await self._writer.write(tokens.revoke(client, request.client_secret, token))
        return access_pb2.RevokeTokenResponse()

    async def _client(self, request: access_pb2.IssueTokenRequest | access_pb2.RevokeTokenRequest) -> rows.Credential:
        """The client that makes the request, as which the call then acts. It is found by its secret, as a key is: wrong
        ones cost no write, and the ids of other projects are not looked at.
        """
        calls.concerns(request.client_id)
        found = await credentials.by_hash(self._reader, secrets.sha256(request.client_secret))
        client = tokens.identified(found, request.client_id, request.client_secret, self._clock.now())
        calls.act_as(Principal(client.id, client.project_id, client.name))
        return client

    def _message(self, principal: Principal) -> access_pb2.Principal:
        message = access_pb2.Principal(
            credential_id=principal.credential_id,
            project_id=principal.project_id,
            scopes=sorted(principal.scopes),
            client_id=principal.client_id,
            per_hour=principal.per_hour,
            per_minute=principal.per_minute,
        )
        if principal.expires_at is not None:
            message.expires_in.FromMicroseconds(max(0, principal.expires_at - self._clock.now()))
        return message

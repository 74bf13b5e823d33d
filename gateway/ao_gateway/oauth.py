"""`/oauth/token`, `/oauth/revoke`: OAuth 2.0 for clients that act for themselves (RFC 6749 section 4.4, RFC 7009)."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

import grpc
import msgspec
import structlog

from agent_orchestration.v1 import access_pb2
from ao_gateway import oauth_errors, oauth_requests
from ao_gateway.access import TIMEOUT_SECONDS
from ao_gateway.addresses import client_address
from ao_gateway.body import BodyReader
from ao_gateway.errors import from_rpc_error
from ao_gateway.oauth_errors import NOT_STORED, OAuthError, answering
from ao_gateway.oauth_requests import Client, Parameters
from ao_gateway.rest import CLIENT_KEY, Answer, Request, Serve
from ao_gateway.throttle import MAX_FAILURES, Throttle, network
from ao_gateway.upstream import Metadata, NoCredential, Upstream

log: Any = structlog.get_logger("ao_gateway.oauth")

TOKEN_PATH: Final = "/oauth/token"
REVOCATION_PATH: Final = "/oauth/revoke"
# Room for a secret of 64 KiB, to say of it that it is wrong.
MAX_BODY_BYTES: Final = 128 * 1024
MAX_HELD_BYTES: Final = 8 * 1024 * 1024
MAX_IN_FLIGHT: Final = 1_000
# Addresses share so many turns by chance. Of tries with one turn so few are made at once as may fail at once.
_TURNS: Final = 64

Response = TypeVar("Response")
_Call = Callable[..., Awaitable[Response]]
_Asked = access_pb2.IssueTokenRequest | access_pb2.RevokeTokenRequest


class OAuth:
    """Gives out and ends access tokens. Who may have one is for the server to say."""

    def __init__(self, upstream: Upstream, connected: asyncio.Event, throttle: Throttle) -> None:
        self._upstream = upstream
        self._connected = connected
        self._throttle = throttle
        self._bodies = BodyReader(MAX_BODY_BYTES, MAX_HELD_BYTES)
        self._in_flight = 0
        self._turns = [asyncio.Semaphore(MAX_FAILURES) for _ in range(_TURNS)]
        self.token: Serve = answering(self._token)
        self.revoke: Serve = answering(self._revoke)

    async def _token(self, request: Request) -> Answer:
        parameters = await self._parameters(request)
        oauth_requests.check_grant(parameters)
        client = oauth_requests.client(request.headers, parameters)
        asked = access_pb2.IssueTokenRequest(scope=oauth_requests.scope(parameters))
        issued: access_pb2.IssueTokenResponse = await self._log_in(
            request, client, asked, self._upstream.access.IssueToken
        )
        answer = {
            "access_token": issued.access_token,
            "token_type": "Bearer",
            "expires_in": issued.expires_in.seconds,
            "scope": " ".join(issued.scopes),
        }
        return Answer(200, msgspec.json.encode(answer), NOT_STORED)

    async def _revoke(self, request: Request) -> Answer:
        parameters = await self._parameters(request)
        client = oauth_requests.client(request.headers, parameters)
        asked = access_pb2.RevokeTokenRequest(token=oauth_requests.token(parameters))
        await self._log_in(request, client, asked, self._upstream.access.RevokeToken)
        return Answer(200, b"{}", NOT_STORED)

    async def _parameters(self, request: Request) -> Parameters:
        body = await self._bodies.read_any(request)
        content_type = dict(request.headers).get(b"content-type", b"")
        return oauth_requests.parameters(content_type, request.scope["query_string"], body)

    async def _log_in(self, request: Request, client: Client, asked: _Asked, call: _Call[Response]) -> Response:
        """Asks the server as the client, unless too many who came from the same address were refused. OAuthError."""
        address = client_address(request.scope)
        async with self._turn(address):
            seconds = self._throttle.wait(address)
            if seconds:
                raise oauth_errors.too_many_failures(seconds)
            try:
                response = await self._ask(client, asked, call, self._metadata(request, address))
            except OAuthError as refusal:
                self._settle(address, refusal, request.id)
                raise
            self._throttle.succeeded(address)
            return response

    async def _ask(self, client: Client, asked: _Asked, call: _Call[Response], metadata: Metadata) -> Response:
        if not client.could_be:
            raise oauth_errors.invalid_client()
        asked.client_id, asked.client_secret = client.id, client.secret
        try:
            return await call(asked, metadata=metadata, timeout=TIMEOUT_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise _refusal(error) from None

    def _settle(self, address: str, refusal: OAuthError, request_id: str) -> None:
        """Says what became of a try: the client is good where only what it asks for is refused."""
        if refusal.status in (400, 429):
            self._throttle.succeeded(address)
        elif refusal.status == 401:
            seconds = self._throttle.failed(address)
            if seconds:
                log.warning("logins_slowed_down", address=address, seconds=seconds, request_id=request_id)

    @asynccontextmanager
    async def _turn(self, address: str) -> AsyncGenerator[None]:
        """A few tries at once: of many that come together, most find out what became of the first. OAuthError."""
        if self._in_flight >= MAX_IN_FLIGHT:
            raise oauth_errors.unavailable("Too many requests for tokens are in flight")
        turn = self._turns[hash(network(address)) % _TURNS]
        self._in_flight += 1
        try:
            try:
                async with asyncio.timeout(TIMEOUT_SECONDS):
                    await turn.acquire()
            except TimeoutError:
                raise oauth_errors.unavailable("The server did not answer in time") from None
            try:
                yield
            finally:
                turn.release()
        finally:
            self._in_flight -= 1

    def _metadata(self, request: Request, address: str) -> Metadata:
        """What the gateway's own calls carry. Not connected, it could be its credential that is refused, not the
        client's.
        """
        try:
            if self._connected.is_set():
                return (*self._upstream.metadata(), ("x-request-id", request.id), (CLIENT_KEY, address))
        except NoCredential:
            pass
        raise oauth_errors.unavailable("The server cannot be reached")


def _refusal(error: grpc.aio.AioRpcError) -> OAuthError:
    refusal = from_rpc_error(error)
    status = refusal.status
    if status == 429:
        return oauth_errors.too_many_tokens(refusal)
    if status == 401:
        return oauth_errors.invalid_client()
    if status == 400:
        return oauth_errors.invalid_scope()
    if status in (408, 503):
        return oauth_errors.unavailable("The server cannot be reached, or did not answer in time")
    log.error("token_call_failed", status=status, reason=error.details())
    return OAuthError("server_error", "An internal error; the request id finds it in the log", 500)

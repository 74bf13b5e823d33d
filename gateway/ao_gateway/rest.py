"""All REST paths: path, method, credential, scope, rate, then what serves it; every answer in the documented shape."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import structlog
from starlette.types import Receive, Scope, Send

from agent_orchestration.rate_limits import RateLimits
from agent_orchestration.scopes import holds, lacking
from ao_gateway import access, errors, protection, rates, request_ids
from ao_gateway.access import Access
from ao_gateway.addresses import client_address
from ao_gateway.bindings import Paths
from ao_gateway.cors import Cors
from ao_gateway.disconnect import ClientGone
from ao_gateway.errors import STOPPING, Headers, Refusal, unavailable

log: Any = structlog.get_logger("ao_gateway.rest")


EXCHANGE: Final = "agent_orchestration.exchange"
# In the metadata of calls to the server: where the client is.
CLIENT_KEY: Final = "agent-orchestration-client"


class Exchange(Protocol):
    """The request and its answer on their connection: the short way, beside that of ASGI."""

    def take_body(self) -> bytes | None:
        """The body, once, if all of it is here."""
        ...

    async def answer(self, status: int, headers: Headers, body: bytes) -> None:
        """Sends a whole answer, with its length. The headers are not checked."""
        ...


@dataclass(slots=True)
class Request:
    """A request whose path and method are served, and whose credential is good."""

    id: str
    scope: Scope
    receive: Receive
    send: Send
    # The values of the path's parameters, in order.
    values: list[str]
    # Empty where none is asked for.
    credential: str = field(repr=False)
    # Of every answer: what is left of the limits of the credential.
    limit_headers: Headers = field(default_factory=lambda: [])
    # What any answer to it says to a page of another origin.
    cors: Headers = field(default_factory=lambda: [])
    # Set by what sends the answer itself, once it has begun to.
    is_answered: bool = False

    @property
    def exchange(self) -> Exchange:
        """The connection's side of it."""
        return self.scope["extensions"][EXCHANGE]

    @property
    def headers(self) -> Headers:
        """The headers as they came, with lower-case names."""
        return self.scope["headers"]

    @property
    def client(self) -> str:
        """The address that the request came from; empty where its connection has none."""
        return client_address(self.scope)

    def metadata(self) -> dict[str, str]:
        """What the server is told of it with the call."""
        return {
            "authorization": f"Bearer {self.credential}",
            "x-request-id": self.id,
            CLIENT_KEY: self.client,
        }

    def answer_headers(self, content_type: bytes, guards: Headers = protection.DATA) -> Headers:
        """What any answer to it carries, also one that streams. `guards`: what browsers are to beware of."""
        return [
            (b"content-type", content_type),
            (request_ids.HEADER, self.id.encode()),
            *guards,
            *self.cors,
            *self.limit_headers,
        ]

    @property
    def is_head(self) -> bool:
        """Whether only the headers of the answer are wanted."""
        return self.scope["method"] == "HEAD"


@dataclass(slots=True)
class Answer:
    """An answer, of JSON if nothing else is said."""

    status: int
    body: bytes
    headers: Headers = field(default_factory=lambda: [])
    content_type: bytes = b"application/json"
    protection: Headers = field(default_factory=lambda: protection.DATA)


# Serves a request; None when it has sent the answer itself. Refusal for every other answer than success.
Serve = Callable[[Request], Awaitable[Answer | None]]
# Hears of a request that is refused before it is served.
Told = Callable[[Request, Refusal], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class _Endpoint:
    serve: Serve
    # What the credential must hold; None where none is asked for.
    scope: str | None
    refused: Told | None


class Rest:
    """The ASGI application of all paths of plain HTTP."""

    def __init__(self, access: Access, limits: RateLimits, cors: Cors) -> None:
        self._access = access
        self._limits = limits
        self._cors = cors
        self._paths: Paths[_Endpoint] = Paths()

    def add(
        self, http_method: str, path: str, serve: Serve, *, scope: str | None = None, refused: Told | None = None
    ) -> None:
        """Takes an endpoint, for credentials with the scope or for all; `refused` is told of calls whose credential
        does not have it. HEAD goes with GET. BadBinding when there is one already.
        """
        self._paths.add(http_method, path, _Endpoint(serve, scope, refused))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one HTTP request, whatever happens, in the documented shape."""
        request_id = request_ids.of(scope["headers"])
        request = Request(request_id, scope, receive, send, [], "", cors=self._cors.headers(scope["headers"]))
        try:
            answer = await self._answer(request)
        except Refusal as refusal:
            answer = _refused(refusal, request_id)
        except ClientGone:
            return
        except asyncio.CancelledError:
            if request.is_answered:
                raise
            # The time that a stop leaves for requests is over.
            answer = _refused(unavailable(STOPPING), request_id)
        except Exception:
            log.exception("request_failed", request_id=request_id, method=scope["method"])
            answer = _refused(errors.internal(), request_id)
        if answer is not None:
            headers = request.answer_headers(answer.content_type, answer.protection) + answer.headers
            await request.exchange.answer(answer.status, headers, answer.body)

    async def _answer(self, request: Request) -> Answer | None:
        preflight = self._cors.preflight(request.scope["method"], request.headers)
        if preflight is not None:
            request.cors = preflight
            return Answer(200, b"", content_type=b"text/plain")
        found = self._paths.find(request.scope["raw_path"])
        if found is None:
            raise errors.not_found()
        method = "GET" if request.is_head else request.scope["method"]
        endpoint = found.targets.get(method)
        if endpoint is None:
            raise errors.method_not_allowed(found.targets)
        request.values = found.values
        if endpoint.scope is not None:
            credential = access.bearer(request.headers)
            if credential is None:
                raise errors.unauthorized("A credential is needed: Authorization: Bearer <key>")
            principal = await self._access.authenticate(credential)
            request.credential = credential
            if not holds(principal.scopes, endpoint.scope):
                request.limit_headers = rates.headers(await rates.left(self._limits, principal))
                refusal = errors.forbidden(lacking(endpoint.scope))
                if endpoint.refused is not None:
                    await endpoint.refused(request, refusal)
                raise refusal
            decision = await rates.counted(self._limits, principal)
            request.limit_headers = rates.headers(decision)
            if decision.is_refused:
                raise errors.rate_limited(decision.message, decision.retry_after)
        return await endpoint.serve(request)


def _refused(refusal: Refusal, request_id: str) -> Answer:
    return Answer(refusal.status, errors.printed(refusal, request_id), refusal.headers)

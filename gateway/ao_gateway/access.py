"""Whom a credential stands for: asked of the server once, kept for as long as it says."""

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

import grpc

from agent_orchestration.v1 import access_pb2
from ao_gateway.errors import Refusal, from_rpc_error, unauthorized, unavailable
from ao_gateway.upstream import NoCredential, Upstream

MAX_KEPT: Final = 10_000
MAX_CREDENTIAL: Final = 8192
TIMEOUT_SECONDS: Final = 10.0
_SCHEME: Final = b"bearer"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls, and the one project in which it acts."""

    credential_id: str
    project_id: str


@dataclass(frozen=True, slots=True)
class _Known:
    principal: Principal
    until: float


def bearer(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """The bearer credential of a request, None without one. Refusal with 401 for anything odd.

    What gRPC could not carry never gets further than here.
    """
    values = [value for name, value in headers if name == b"authorization"]
    if not values:
        return None
    if len(values) > 1:
        raise unauthorized("There is more than one Authorization header")
    scheme, _, credential = values[0].strip(b" \t").partition(b" ")
    if scheme.lower() != _SCHEME:
        raise unauthorized("The Authorization header must be: Bearer <key>")
    return checked(credential.strip(b" ").decode("latin-1"))


def checked(credential: str) -> str:
    """The credential, if it could be one: printable ASCII without spaces. Refusal with 401 otherwise."""
    is_text = credential.isascii() and credential.isprintable() and " " not in credential
    if not credential or len(credential) > MAX_CREDENTIAL or not is_text:
        raise unauthorized("The credential is not valid")
    return credential


class Access:
    """Authenticates credentials. Refused ones are not remembered: a key made a moment ago must work at once."""

    def __init__(
        self, upstream: Upstream, connected: asyncio.Event, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._upstream = upstream
        self._connected = connected
        self._monotonic = monotonic
        self._known: dict[bytes, _Known] = {}
        self._asking: dict[bytes, asyncio.Task[Principal]] = {}

    async def authenticate(self, credential: str) -> Principal:
        """Whom the credential stands for. Refusal with 401 when for nobody, 503 when the server cannot be asked."""
        digest = sha256(credential.encode()).digest()
        known = self._known.get(digest)
        if known is not None and known.until > self._monotonic():
            return known.principal
        if not self._connected.is_set():
            # A refusal of the gateway's own credential must not look like one of the user's.
            raise unavailable("The server cannot be reached")
        asking = self._asking.get(digest)
        if asking is None:
            # Requests that come together ask once; none of them may end the question for the others.
            asking = asyncio.create_task(self._ask(credential, digest))
            self._asking[digest] = asking
            asking.add_done_callback(lambda _: self._asking.pop(digest, None))
        return await asyncio.shield(asking)

    async def _ask(self, credential: str, digest: bytes) -> Principal:
        request = access_pb2.AuthenticateRequest(credential=credential)
        asked_at = self._monotonic()
        try:
            metadata = self._upstream.metadata()
            response = await self._upstream.access.Authenticate(request, metadata=metadata, timeout=TIMEOUT_SECONDS)
        except NoCredential:
            raise unavailable("The server cannot be reached") from None
        except grpc.aio.AioRpcError as error:
            self._known.pop(digest, None)
            raise _refusal(error) from None
        principal = Principal(response.principal.credential_id, response.principal.project_id)
        self._keep(digest, _Known(principal, asked_at + response.cache_for.ToTimedelta().total_seconds()))
        return principal

    def _keep(self, digest: bytes, known: _Known) -> None:
        self._known.pop(digest, None)
        while len(self._known) >= MAX_KEPT:
            del self._known[next(iter(self._known))]
        self._known[digest] = known


def _refusal(error: grpc.aio.AioRpcError) -> Refusal:
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return unavailable("The server did not answer in time")
    return from_rpc_error(error)

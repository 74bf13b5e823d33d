"""Whom a credential stands for: asked of the server once, kept until the server tells of a change."""

import asyncio
import math
import time
from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

import grpc
import structlog

from agent_orchestration.v1 import access_pb2
from ao_gateway.errors import Refusal, from_rpc_error, unauthorized, unavailable
from ao_gateway.upstream import NoCredential, Upstream

log: Any = structlog.get_logger("ao_gateway.access")

MAX_KEPT: Final = 10_000
# Credentials that the server is being asked about.
MAX_ASKING: Final = 1_000
BACKOFF_SECONDS: Final = 0.1
MAX_CREDENTIAL: Final = 8192
TIMEOUT_SECONDS: Final = 10.0
_SCHEME: Final = b"bearer"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls, and the one project in which it acts."""

    credential_id: str
    project_id: str
    scopes: frozenset[str] = frozenset()
    # Of an access token: its OAuth client.
    client_id: str = ""
    # Rate limits of its own; 0 for none.
    per_hour: int | None = None
    per_minute: int | None = None


@dataclass(frozen=True, slots=True)
class _Known:
    principal: Principal
    # Monotonic seconds: when the credential ends, and until when its state is known to a gateway that is not told of
    # changes.
    ends: float
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
        self._in_flight = 0
        self._watch_call: Any = None
        # How often the watch has ended.
        self.losses = 0
        self._is_watching = False
        # Counts what was told of changes: an answer that was asked for before may be out of date.
        self._generation = 0
        # Set when a credential may have ended that somebody holds a connection open under.
        self.changed = asyncio.Event()
        # Set while no change can have been missed that is not known of by now: until then nothing more is passed on to
        # connections that were open before.
        self.is_current = asyncio.Event()

    async def run(self) -> None:
        """Hears of changes while the server is there, until cancelled."""
        while True:
            await self._connected.wait()
            try:
                await self._watch()
            except (NoCredential, grpc.aio.AioRpcError) as error:
                log.debug("credentials_not_watched", exc_info=error)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                # The call alone was: see `server_lost`.
            finally:
                self._watch_ended()
            await asyncio.sleep(BACKOFF_SECONDS)

    def server_lost(self) -> None:
        """The server is gone: what tells of changes may be dead without saying so."""
        if self._watch_call is not None:
            self._watch_call.cancel()
        self._watch_ended()

    def verified(self, losses: int) -> None:
        """Whoever holds connections open has asked about all credentials, after so many losses: see `is_current`."""
        if self._is_watching and losses == self.losses:
            self.is_current.set()

    async def authenticate(self, credential: str) -> Principal:
        """Whom the credential stands for. Refusal with 401 when for nobody, 503 when the server cannot be asked."""
        digest = sha256(credential.encode()).digest()
        known = self._known.get(digest)
        if known is not None:
            now = self._monotonic()
            if now < known.ends and (self._is_watching or now < known.until):
                return known.principal
        if not self._connected.is_set():
            # A refusal of the gateway's own credential must not look like one of the user's.
            raise unavailable("The server cannot be reached")
        asking = self._asking.get(digest)
        if asking is None:
            if self._in_flight >= MAX_ASKING:
                raise unavailable("Too many credentials are being checked")
            # Requests that come together ask once; none of them may end the question for the others.
            asking = asyncio.create_task(self._ask(credential, digest))
            self._asking[digest] = asking
            self._in_flight += 1
            asking.add_done_callback(lambda asked: self._answered(digest, asked))
        return await asyncio.shield(asking)

    def _watch_ended(self) -> None:
        self.losses += 1
        self._is_watching = False
        self.is_current.clear()
        self._forget_all()

    async def _watch(self) -> None:
        self._watch_call = call = self._upstream.access.WatchCredentials(
            access_pb2.WatchCredentialsRequest(), metadata=self._upstream.metadata()
        )
        async for response in call:
            if not self._is_watching:
                # What was found out before may have changed unheard.
                self._is_watching = True
                self._forget_all()
            elif response.credential_ids:
                self._forget(set(response.credential_ids))

    def _answered(self, digest: bytes, asked: asyncio.Task[Principal]) -> None:
        self._in_flight -= 1
        if self._asking.get(digest) is asked:
            del self._asking[digest]

    def _forget(self, credential_ids: AbstractSet[str]) -> None:
        self._outdate()
        for digest, known in list(self._known.items()):
            if not credential_ids.isdisjoint((known.principal.credential_id, known.principal.client_id)):
                del self._known[digest]
        self.changed.set()

    def _outdate(self) -> None:
        """What was asked before now may be answered with what is not so any more."""
        self._generation += 1
        self._asking.clear()

    def _forget_all(self) -> None:
        self._outdate()
        self._known.clear()
        self.changed.set()

    async def _ask(self, credential: str, digest: bytes) -> Principal:
        request = access_pb2.AuthenticateRequest(credential=credential)
        asked_at, generation = self._monotonic(), self._generation
        try:
            metadata = self._upstream.metadata()
            response = await self._upstream.access.Authenticate(request, metadata=metadata, timeout=TIMEOUT_SECONDS)
        except NoCredential:
            raise unavailable("The server cannot be reached") from None
        except grpc.aio.AioRpcError as error:
            self._known.pop(digest, None)
            raise _refusal(error) from None
        principal = _principal(response.principal)
        if generation == self._generation:
            ends = math.inf
            if response.principal.HasField("expires_in"):
                ends = asked_at + response.principal.expires_in.ToMicroseconds() / 1e6
            self._keep(digest, _Known(principal, ends, asked_at + response.cache_for.ToMicroseconds() / 1e6))
        return principal

    def _keep(self, digest: bytes, known: _Known) -> None:
        self._known.pop(digest, None)
        while len(self._known) >= MAX_KEPT:
            del self._known[next(iter(self._known))]
        self._known[digest] = known


def _principal(message: access_pb2.Principal) -> Principal:
    return Principal(
        credential_id=message.credential_id,
        project_id=message.project_id,
        scopes=frozenset(message.scopes),
        client_id=message.client_id,
        per_hour=message.per_hour if message.HasField("per_hour") else None,
        per_minute=message.per_minute if message.HasField("per_minute") else None,
    )


def _refusal(error: grpc.aio.AioRpcError) -> Refusal:
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return unavailable("The server did not answer in time")
    return from_rpc_error(error)

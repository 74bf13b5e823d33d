"""Who a credential stands for: one `authenticate` that every path passes through.

What was found out about a credential is kept until a commit changes it: one that was seen costs no query again, and one
that is revoked is refused from that commit on. Whoever holds a connection open under a credential is told when it ends.
"""

import asyncio
import hmac
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, TypeVar

import structlog

from ao_server.engine.clock import Clock
from ao_server.engine.secrets import sha256
from ao_server.errors import Unauthorized, Unavailable
from ao_server.store import credentials, rows
from ao_server.store.changes import Change
from ao_server.store.reader import Reader

log = structlog.get_logger("ao_server.engine.access")

Kept = TypeVar("Kept")

KNOWN_LIMIT: Final = 10_000
UNKNOWN_LIMIT: Final = 1_000
MOST_LOOKS: Final = 10
MAX_CREDENTIAL_LENGTH: Final = 4096
GATEWAY: Final = "gateway"
_REFUSED: Final = "the credential is not valid"


@dataclass(frozen=True, slots=True)
class Principal:
    """Whom a credential stands for. A gateway belongs to no project."""

    credential_id: str
    project_id: str
    name: str = ""
    scopes: frozenset[str] = frozenset()
    is_gateway: bool = False
    # Of an access token: its OAuth client.
    client_id: str = ""
    # When the secret that was shown ends, in microseconds since 1970.
    expires_at: int | None = None
    # The one agent, or the type of agents, that a runner may connect as.
    agent_id: str | None = None
    agent_type: str | None = None
    # Rate limits of its own; 0 for none.
    per_hour: int | None = None
    per_minute: int | None = None
    # SHA-256 of the secret that was shown.
    hashed: str = field(default="", repr=False)


@dataclass(eq=False, slots=True)
class Held:
    """A connection that is open under a credential. There are thousands."""

    principal: Principal
    end: Callable[[], None]
    timer: asyncio.TimerHandle | None = None


@dataclass(eq=False, slots=True)
class _Look:
    """A look into the store for a secret. What it finds is out of date when a commit came in between."""

    hashed: str
    is_stale: bool = False


class Access:
    """Knows the gateway's credential, and the users' by the store."""

    def __init__(self, reader: Reader, clock: Clock, gateway_key: str) -> None:
        self._reader = reader
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._gateway_hash = sha256(gateway_key)
        # By the secret's hash: credentials, and secrets of which there is none.
        self._known: OrderedDict[str, Principal] = OrderedDict()
        self._unknown: OrderedDict[str, None] = OrderedDict()
        # How many were shown that are unknown or ended: the audit log has none of them.
        self._refused = 0
        self._looks: set[_Look] = set()
        # By the id of the key, or of the client of a token.
        self._held: dict[str, set[Held]] = {}
        self._listeners: set[Callable[[str], None]] = set()

    async def authenticate(self, credential: str) -> Principal:
        """Unauthorized when the credential is unknown, expired or revoked."""
        if not credential or len(credential) > MAX_CREDENTIAL_LENGTH:
            raise Unauthorized(_REFUSED)
        hashed = sha256(credential)
        known = self._known.get(hashed)
        if known is None:
            if self.is_gateway(credential):
                return Principal(GATEWAY, "", is_gateway=True)
            known = None if hashed in self._unknown else await self._look_up(hashed)
        if known is None or (known.expires_at is not None and known.expires_at <= self._clock.now()):
            self._refused += 1
            log.debug("credential_refused", refused=self._refused)
            raise Unauthorized(_REFUSED)
        return known

    def is_gateway(self, credential: str) -> bool:
        """Whether it is the gateway's own credential."""
        return hmac.compare_digest(sha256(credential), self._gateway_hash)

    def hold(self, principal: Principal, end: Callable[[], None]) -> Held:
        """A connection is open under a credential, until `release`: `end` is called when that may not be any longer.

        In the same turn of the loop as `authenticate`: what changes in between would not be heard of.
        """
        held = Held(principal, end)
        self._held.setdefault(_root(principal), set()).add(held)
        self._set_timer(held)
        return held

    def release(self, held: Held) -> None:
        """The connection is closed."""
        if held.timer is not None:
            held.timer.cancel()
        of_credential = self._held[_root(held.principal)]
        of_credential.discard(held)
        if not of_credential:
            del self._held[_root(held.principal)]

    @contextmanager
    def listening(self, told: Callable[[str], None]) -> Generator[None]:
        """Meanwhile `told` hears the id of each credential that is changed, in the event loop."""
        self._listeners.add(told)
        try:
            yield
        finally:
            self._listeners.discard(told)

    def observe(self, changes: Iterable[Change]) -> None:
        """Hears of every commit, in the writer's thread."""
        changed = [change for change in changes if type(change[1]) is rows.Credential]
        if changed:
            self._loop.call_soon_threadsafe(self._changed, changed)

    def _changed(self, changes: Iterable[Change]) -> None:
        for before, row in changes:
            # Somebody may have come with a secret before there was one.
            self._unknown.pop(row.sha256, None)
            for look in self._looks:
                # New ones, of which there may be many a second, are nothing to those who look for others.
                look.is_stale = look.is_stale or before is not None or look.hashed == row.sha256
            if before is not None:
                self._reconsider(row)

    def _reconsider(self, row: rows.Credential) -> None:
        for hashed in [each for each, known in self._known.items() if row.id in (known.credential_id, known.client_id)]:
            del self._known[hashed]
        for held in list(self._held.get(row.client_id or row.id, ())):
            self._review(held, row)
        for told in list(self._listeners):
            told(row.id)

    def _review(self, held: Held, row: rows.Credential) -> None:
        """The credential that a connection is open under, or its client, has changed."""
        if row.id == held.principal.client_id:
            principal = held.principal if row.revoked_at is None else None
        elif row.id == held.principal.credential_id:
            principal = _principal(row, held.principal.hashed)
        else:
            return
        if principal is None:
            held.end()
        else:
            held.principal = principal
            self._set_timer(held)

    def _set_timer(self, held: Held) -> None:
        if held.timer is not None:
            held.timer.cancel()
            held.timer = None
        expires_at = held.principal.expires_at
        if expires_at is not None:
            seconds = max(0.0, (expires_at - self._clock.now()) / 1e6)
            held.timer = self._loop.call_later(seconds, held.end)

    async def _look_up(self, hashed: str) -> Principal | None:
        for _ in range(MOST_LOOKS):
            look = _Look(hashed)
            self._looks.add(look)
            try:
                principal = await self._read(hashed)
            finally:
                self._looks.discard(look)
            if look.is_stale:
                continue
            if principal is None:
                _keep(self._unknown, hashed, None, UNKNOWN_LIMIT)
            else:
                _keep(self._known, hashed, principal, KNOWN_LIMIT)
            return principal
        raise Unavailable("credentials change too fast")

    async def _read(self, hashed: str) -> Principal | None:
        row = await credentials.by_hash(self._reader, hashed)
        if row is None:
            return None
        if row.client_id is not None:
            client = await credentials.get(self._reader, "client", row.project_id, row.client_id)
            if client is None or client.revoked_at is not None:
                return None
        return _principal(row, hashed)


def _keep(kept: OrderedDict[str, Kept], hashed: str, what: Kept, limit: int) -> None:
    kept[hashed] = what
    if len(kept) > limit:
        kept.popitem(last=False)


def _root(principal: Principal) -> str:
    return principal.client_id or principal.credential_id


def _principal(row: rows.Credential, hashed: str) -> Principal | None:
    """Whom the credential stands for when it is shown with this secret; None when it is no bearer credential, revoked,
    or the secret is not its own any more.
    """
    if row.kind == "client" or row.revoked_at is not None:
        return None
    ends = [] if row.expires_at is None else [row.expires_at]
    if not hmac.compare_digest(hashed, row.sha256):
        if row.previous_sha256 is None or not hmac.compare_digest(hashed, row.previous_sha256):
            return None
        ends.append(row.previous_expires_at or 0)
    return Principal(
        credential_id=row.id,
        project_id=row.project_id,
        name=row.name,
        scopes=frozenset(row.scopes.split()),
        client_id=row.client_id or "",
        expires_at=min(ends, default=None),
        agent_id=row.agent_id,
        agent_type=row.agent_type,
        per_hour=row.per_hour,
        per_minute=row.per_minute,
        hashed=hashed,
    )

"""Who a credential stands for: one `authenticate` that every path passes through, cached by the secret's hash."""

import hashlib
import hmac
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from ao_server.engine.clock import Clock
from ao_server.errors import Unauthorized
from ao_server.store import credentials
from ao_server.store.reader import Reader

CACHE_SECONDS: Final = 5.0
CACHE_LIMIT: Final = 10_000
MAX_CREDENTIAL_LENGTH: Final = 4096


@dataclass(frozen=True, slots=True)
class Principal:
    """Whom a credential stands for. A gateway belongs to no project."""

    credential_id: str
    project_id: str
    is_gateway: bool = False


class Access:
    """Knows the gateway's credential, and the users' by the store."""

    def __init__(self, reader: Reader, clock: Clock, gateway_key: str) -> None:
        self._reader = reader
        self._clock = clock
        self._gateway_hash = sha256(gateway_key)
        self._cache: OrderedDict[str, tuple[float, Principal | None]] = OrderedDict()

    async def authenticate(self, credential: str) -> Principal:
        """Unauthorized when the credential is unknown."""
        if not credential or len(credential) > MAX_CREDENTIAL_LENGTH:
            raise Unauthorized("the credential is not valid")
        hashed = sha256(credential)
        now = self._clock.monotonic()
        kept = self._cache.get(hashed)
        if kept is not None and now < kept[0]:
            principal = kept[1]
        elif hmac.compare_digest(hashed, self._gateway_hash):
            principal = Principal("gateway", "", is_gateway=True)
        else:
            principal = await self._user(hashed, now)
        if principal is None:
            raise Unauthorized("the credential is not valid")
        return principal

    async def _user(self, hashed: str, now: float) -> Principal | None:
        row = await credentials.by_hash(self._reader, hashed)
        principal = None if row is None else Principal(row.id, row.project_id)
        self._cache[hashed] = (now + CACHE_SECONDS, principal)
        self._cache.move_to_end(hashed)
        if len(self._cache) > CACHE_LIMIT:
            self._cache.popitem(last=False)
        return principal


def sha256(secret: str) -> str:
    """What the store knows of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()

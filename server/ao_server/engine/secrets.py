"""Secrets of credentials: made here, shown once, kept as their SHA-256."""

import hashlib
import secrets
from typing import Final

# Ways to begin, so that a secret which turns up somewhere is known for what it is.
KEY: Final = "ao_live_"
CLIENT: Final = "ao_cs_"
TOKEN: Final = "ao_at_"
GATEWAY: Final = "ao_gw_"

PREFIX_LENGTH: Final = 12
_RANDOM_BYTES: Final = 32


def new(prefix: str) -> str:
    """A secret that nobody can guess."""
    return prefix + secrets.token_urlsafe(_RANDOM_BYTES)


def sha256(secret: str) -> str:
    """What the store knows of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


def beginning(secret: str) -> str:
    """What may be shown of a secret, to tell it from others. Nothing of one that is not ours: it may be short."""
    return secret[:PREFIX_LENGTH] if secret.startswith((KEY, CLIENT, TOKEN)) else ""

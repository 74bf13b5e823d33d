"""Reads of credentials."""

from typing import Any

from ao_server.store import rows, tables
from ao_server.store.reader import Reader

_CREDENTIAL: Any = tables.Credential


async def by_hash(reader: Reader, sha256: str) -> rows.Credential | None:
    """The credential whose secret has this SHA-256 (hexadecimal)."""
    return await reader.one(rows.Credential, _CREDENTIAL.sha256 == sha256)

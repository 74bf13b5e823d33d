"""Reads of credentials."""

from typing import Any

from sqlalchemy import func, or_, select

from ao_server.store import rows, tables
from ao_server.store.reader import Page, Reader

_CREDENTIAL: Any = tables.Credential


async def by_hash(reader: Reader, sha256: str) -> rows.Credential | None:
    """The credential of which a secret, the present or the previous one, has this SHA-256 (hexadecimal)."""
    return await reader.one(rows.Credential, or_(_CREDENTIAL.sha256 == sha256, _CREDENTIAL.previous_sha256 == sha256))


async def get(reader: Reader, kind: str, project_id: str, credential_id: str) -> rows.Credential | None:
    """One credential of a kind."""
    return await reader.one(
        rows.Credential,
        _CREDENTIAL.project_id == project_id,
        _CREDENTIAL.id == credential_id,
        _CREDENTIAL.kind == kind,
    )


async def page(reader: Reader, kind: str, project_id: str, *, page: int, limit: int) -> Page[rows.Credential]:
    """A page of a project's credentials of a kind, newest first."""
    where = [_CREDENTIAL.project_id == project_id, _CREDENTIAL.kind == kind]
    counted = select(func.count()).select_from(tables.Credential).where(*where)
    async with reader.connect() as connection:
        total = (await connection.execute(counted)).scalar_one()
        found = await reader.rows(
            connection, rows.Credential, *where, order=_CREDENTIAL.id.desc(), limit=limit, offset=(page - 1) * limit
        )
    return Page(found, total)


async def keys_of(reader: Reader, project_id: str) -> list[rows.Credential]:
    """The API keys of a project that are not revoked."""
    where = (_CREDENTIAL.project_id == project_id, _CREDENTIAL.kind == "key", _CREDENTIAL.revoked_at.is_(None))
    async with reader.connect() as connection:
        return await reader.rows(connection, rows.Credential, *where)

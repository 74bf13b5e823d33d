"""The two keys that a data folder holds: the admin's, for people, and the gateway's own."""

import os
import secrets
from pathlib import Path
from typing import Final

import structlog

from ao_server.engine.access import sha256
from ao_server.engine.ids import Ids
from ao_server.store import rows
from ao_server.store.changes import Changes, Found, Operation

log = structlog.get_logger("ao_server.keys")

DEFAULT_PROJECT: Final = "project_default"
ADMIN: Final = "admin"
SHORT_KEY_LENGTH: Final = 32


def gateway_key(data_dir: Path, given: str | None) -> str:
    """The gateway's credential: the given one, or the folder's, made at the first start."""
    path = data_dir / "gateway.key"
    if given is not None:
        return given
    kept = _read(path)
    if kept is None:
        kept = f"ao_gw_{secrets.token_urlsafe(32)}"
        _write(path, kept)
    return kept


def new_admin_key(data_dir: Path, given: str | None) -> str:
    """The first admin key: the given one, or a new one. It is kept in the folder before the store knows it, so that an
    interrupted first start loses nothing.
    """
    path = data_dir / "admin.key"
    if given is not None and len(given) < SHORT_KEY_LENGTH:
        log.warning("short_admin_key", advice=f"use at least {SHORT_KEY_LENGTH} characters")
    key = given or _read(path) or f"ao_live_{secrets.token_urlsafe(32)}"
    _write(path, key)
    return key


def found_project(key: str, ids: Ids) -> Operation[None]:
    """Makes the default project: its feed and its admin credential."""

    def decide(found: Found, now: int) -> Changes[None]:
        identifier, created_at = ids.new("key", now)
        credential = rows.Credential(
            project_id=DEFAULT_PROJECT, id=identifier, name=ADMIN, sha256=sha256(key), created_at=created_at
        )
        feed = rows.Feed(project_id=DEFAULT_PROJECT, feed_id=secrets.token_hex(4))
        return Changes(None, rows=[credential, feed])

    return Operation(decide)


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii").strip() or None
    except FileNotFoundError:
        return None


def _write(path: Path, key: str) -> None:
    """Writes the file whole or not at all, readable by its owner alone."""
    temporary = path.with_name(path.name + ".new")
    with os.fdopen(os.open(temporary, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w", encoding="ascii") as file:
        file.write(key + "\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)

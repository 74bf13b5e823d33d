"""The two keys that a data folder holds: the admin's, for people, and the gateway's own."""

import os
from pathlib import Path
from typing import Final

import structlog

from ao_server.engine import secrets

log = structlog.get_logger("ao_server.keys")

SHORT_KEY_LENGTH: Final = 32


def gateway_key(data_dir: Path, given: str | None) -> str:
    """The gateway's credential: the given one, or the folder's, made at the first start."""
    path = data_dir / "gateway.key"
    if given is not None:
        return given
    kept = _read(path)
    if kept is None:
        kept = secrets.new(secrets.GATEWAY)
        _write(path, kept)
    return kept


def new_admin_key(data_dir: Path, given: str | None) -> str:
    """The first admin key: the given one, or a new one. It is kept in the folder before the store knows it, so that an
    interrupted first start loses nothing.
    """
    path = data_dir / "admin.key"
    if given is not None and len(given) < SHORT_KEY_LENGTH:
        log.warning("short_admin_key", advice=f"use at least {SHORT_KEY_LENGTH} characters")
    key = given or _read(path) or secrets.new(secrets.KEY)
    _write(path, key)
    return key


def keep_admin_key(data_dir: Path, key: str) -> None:
    """Keeps another admin key in the folder, in place of the one there."""
    _write(data_dir / "admin.key", key)


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

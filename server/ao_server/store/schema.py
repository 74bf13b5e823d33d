"""Brings a database to this build's schema: makes it, migrates an older one behind a copy, refuses a newer one."""

import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import structlog
from sqlalchemy import Connection, inspect, text

from ao_server.errors import CannotStart

log = structlog.get_logger("ao_server.store.schema")

MIGRATIONS: Final = Path(__file__).parent / "migrations"
# The newest revision under migrations/versions. Known here so that an up-to-date start need not import Alembic.
HEAD: Final = "0009"


def prepare(connection: Connection, path: Path | None) -> None:
    """Makes the schema current. `path` is the SQLite file, None for PostgreSQL.

    CannotStart when the schema is newer than this build. An interrupted run leaves the database as it was.
    """
    current = current_revision(connection)
    if current == HEAD:
        return
    revisions = _revisions()
    if current is not None and current not in revisions:
        raise CannotStart(f"the database schema is newer than this build (revision {current}, known up to {HEAD})")
    if current is not None and path is not None:
        _copy(path, current)
    log.info("migrating", from_revision=current, to_revision=HEAD)
    _upgrade(connection)


def current_revision(connection: Connection) -> str | None:
    """The schema's revision, None for an empty database."""
    with connection.begin():
        if not inspect(connection).has_table("alembic_version"):
            return None
        return connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()


def alembic_configuration() -> Any:
    """Alembic's configuration for the migrations inside this package."""
    from alembic.config import Config

    configuration = Config()
    configuration.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return configuration


def _revisions() -> set[str]:
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory.from_config(alembic_configuration())
    return {script.revision for script in scripts.walk_revisions()}


def _upgrade(connection: Connection) -> None:
    from alembic import command

    configuration = alembic_configuration()
    configuration.attributes["connection"] = connection
    with connection.begin():
        command.upgrade(configuration, "head")


def _copy(path: Path, revision: str) -> None:
    target = path.with_name(f"{path.name}.before-{HEAD}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
    source = sqlite3.connect(path)
    copy = sqlite3.connect(target)
    try:
        source.backup(copy)
    finally:
        copy.close()
        source.close()
    target.chmod(0o600)
    log.info("copied_before_migration", copy=target.name, revision=revision)

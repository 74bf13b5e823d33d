"""Projects: what is there from the moment that one is made."""

import secrets
from collections.abc import Callable
from typing import Final

import msgspec

from agent_orchestration.scopes import ADMIN
from ao_server.engine import credentials
from ao_server.engine.credentials import NewCredential
from ao_server.engine.ids import Ids
from ao_server.store import rows
from ao_server.store.changes import Changes, Found, Operation

# Made at the first start. Its admins make the others.
DEFAULT: Final = "project_default"
DEFAULT_NAME: Final = "Default"


class Founded(msgspec.Struct):
    """A new project, its first admin key, and the feed of its events."""

    project: rows.Project
    key: rows.Credential
    feed: rows.Feed


def found_default(secret: str, ids: Ids) -> Operation[Founded]:
    """Makes the default project with this admin key."""
    return Operation(lambda found, now: _founded(DEFAULT, now, DEFAULT_NAME, secret, ids, now))


def create(name: str, secret: str, ids: Ids, opened: Callable[[Founded], None]) -> Operation[Founded]:
    """Makes a project with this admin key; `opened` is told after the commit."""

    def decide(found: Found, now: int) -> Changes[Founded]:
        identifier, created_at = ids.new("project", now)
        return _founded(identifier, created_at, name, secret, ids, now)

    return Operation(decide, delivered=opened)


def admin_key(project_id: str) -> NewCredential:
    """The first key of a project."""
    return NewCredential(project_id, "key", ADMIN, [ADMIN])


def _founded(project_id: str, created_at: int, name: str, secret: str, ids: Ids, now: int) -> Changes[Founded]:
    founded = Founded(
        rows.Project(id=project_id, name=name, created_at=created_at),
        credentials.record(admin_key(project_id), secret, ids, now),
        rows.Feed(project_id=project_id, feed_id=secrets.token_hex(4)),
    )
    return Changes(founded, rows=[founded.project, founded.key, founded.feed])

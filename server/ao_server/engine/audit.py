"""The audit log: who did what to which object, from where and with what outcome."""

import re
from typing import Final

import msgspec

from ao_server.engine.ids import Ids
from ao_server.engine.projects import DEFAULT
from ao_server.store import rows
from ao_server.store.changes import Changes, Operation

PREFIX: Final = "audit"
# The actor of what is done on the server's machine, by who owns the data.
LOCAL: Final = "local"
# The call ended before its outcome was known: it may have had its effect.
INTERRUPTED: Final = "interrupted"
_MOST_TEXT: Final = 200
_ID: Final = re.compile("[a-z]{1,16}_[0-9a-hjkmnp-tv-z]{26}")


class Entry(msgspec.Struct, frozen=True):
    """One call, as it came to an end."""

    # Empty where it is not known: the default project's.
    project_id: str
    actor_id: str
    actor_name: str
    action: str
    outcome: str
    object_id: str = ""
    address: str = ""
    request_id: str = ""


def record(entry: Entry, ids: Ids) -> Operation[None]:
    """Adds a record."""
    return Operation(lambda found, now: Changes(None, rows=[row(entry, ids, now)]))


def row(entry: Entry, ids: Ids, now: int) -> rows.AuditRecord:
    """The record of a call. What the caller made up is in it only as far as it can be no secret: ids, and not too much
    of any text.
    """
    identifier, _ = ids.new(PREFIX, now)
    return rows.AuditRecord(
        project_id=entry.project_id or DEFAULT,
        id=identifier,
        actor_id=entry.actor_id,
        actor_name=entry.actor_name,
        action=entry.action,
        object_id=entry.object_id if is_id(entry.object_id) else "",
        outcome=entry.outcome,
        address=entry.address[:_MOST_TEXT],
        request_id=entry.request_id[:_MOST_TEXT],
    )


def is_id(text: str) -> bool:
    """Whether a text has the form of an id of ours. A key that was put where an id belongs has not."""
    return text == DEFAULT or _ID.fullmatch(text) is not None

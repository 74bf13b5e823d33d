"""A new admin key of the default project, made on the machine by who owns its data, with the server stopped."""

from typing import Final

from ao_server import folder, keys
from ao_server.app import database_of, open_writer
from ao_server.engine import audit, counters, credentials, projects, secrets
from ao_server.engine.clock import SystemClock
from ao_server.engine.ids import Ids
from ao_server.errors import CannotStart
from ao_server.settings import Settings
from ao_server.store import credentials as stored
from ao_server.store import rows
from ao_server.store.changes import Changes, Found, Key, Operation
from ao_server.store.reader import Reader
from ao_server.store.transactions import Transactions

_ACTION: Final = "RecoverAdminKey"


async def recover(settings: Settings, *, revoke_others: bool) -> str:
    """Makes the key, keeps it in the data folder and returns it; ends the project's other admin keys if that is asked
    for. CannotStart when a server runs or there is no project yet.
    """
    with folder.locked(settings.data_dir):
        database = database_of(settings)
        transactions = Transactions(database, SystemClock().now, lambda batch: (each for each in ()), counters.of)
        try:
            transactions.use(open_writer(database))
            known = await stored.keys_of(Reader(database), projects.DEFAULT)
            if not known:
                raise CannotStart("there is no admin key yet: the first start of the server makes one")
            secret = secrets.new(secrets.KEY)
            others = [each for each in known if "admin" in each.scopes.split()] if revoke_others else []
            transactions.run([_recover(secret, others, Ids())])
            keys.keep_admin_key(settings.data_dir, secret)
        finally:
            transactions.close()
            await database.close()
    return secret


def _recover(secret: str, others: list[rows.Credential], ids: Ids) -> Operation[None]:
    def decide(found: Found, now: int) -> Changes[None]:
        key = credentials.record(projects.admin_key(projects.DEFAULT), secret, ids, now)
        changes = Changes(None, rows=[key, _record(_ACTION, key.id, ids, now)])
        for other in others:
            after = rows.copy_of(other)
            after.revoked_at = now
            changes.rows += [after, _record("RevokeKey", after.id, ids, now)]
        return changes

    return Operation(decide, keys=[Key(rows.Credential, (each.project_id, each.id)) for each in others])


def _record(action: str, object_id: str, ids: Ids, now: int) -> rows.AuditRecord:
    entry = audit.Entry(projects.DEFAULT, audit.LOCAL, "", action, "success", object_id)
    return audit.row(entry, ids, now)

"""What is found out about a credential while others are made and changed."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from ao_server.engine.access import MOST_LOOKS, Access
from ao_server.engine.clock import SystemClock
from ao_server.engine.secrets import sha256
from ao_server.errors import Unauthorized, Unavailable
from ao_server.store import rows
from ao_server.store.changes import Change


class Busy:
    """A reader that finds what is there, while something else happens."""

    def __init__(self, *stored: rows.Credential) -> None:
        self.stored = {row.sha256: row for row in stored}
        self.meanwhile: Callable[[], Change] | None = None
        self.looks = 0
        self.access: Any = Access(self, SystemClock(), "ao_gw_key")  # pyright: ignore[reportArgumentType] - the part of a reader that is used

    async def one(self, row: type[rows.Credential], *where: Any) -> rows.Credential | None:
        self.looks += 1
        wanted = {each.right.value for each in where[0].clauses}
        found = next((each for hashed, each in self.stored.items() if hashed in wanted), None)
        if self.meanwhile is not None:
            self.access.observe([self.meanwhile()])
            await asyncio.sleep(0)
        return found


def key(secret: str) -> rows.Credential:
    return rows.Credential(
        project_id="project_1",
        id=f"key_{secret}",
        kind="key",
        name="n",
        scopes="admin",
        sha256=sha256(secret),
        created_at=0,
    )


async def test_credentials_that_are_made_meanwhile_hold_nobody_up() -> None:
    busy = Busy(key("one"))
    busy.meanwhile = lambda: (None, key("other"))
    assert (await busy.access.authenticate("one")).credential_id == "key_one"
    assert (await busy.access.authenticate("one")).credential_id == "key_one"
    assert busy.looks == 1


async def test_a_secret_is_not_taken_for_unknown_that_is_made_while_it_is_looked_for() -> None:
    busy = Busy()
    busy.meanwhile = lambda: (None, key("new"))
    with pytest.raises(Unauthorized):
        await busy.access.authenticate("new")
    busy.meanwhile = None
    busy.stored[sha256("new")] = key("new")
    assert (await busy.access.authenticate("new")).credential_id == "key_new"


async def test_a_credential_is_read_again_when_one_is_changed_meanwhile() -> None:
    busy = Busy(key("one"))
    busy.meanwhile = lambda: (key("one"), key("one"))
    with pytest.raises(Unavailable):
        await busy.access.authenticate("one")
    assert busy.looks == MOST_LOOKS

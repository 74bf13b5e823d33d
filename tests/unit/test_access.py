"""Who a credential stands for while commits come in between, and what is open under it when it ends."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from ao_server.engine.access import MOST_LOOKS, Access
from ao_server.engine.secrets import sha256
from ao_server.errors import Unauthorized
from ao_server.store import rows

SECOND = 1_000_000
SECRET, FRESH = "ao_live_secret", "ao_live_fresh"


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.time = SECOND

    def now(self) -> int:
        return self.time

    def monotonic(self) -> float:
        return self.time / SECOND


class Store:
    """Gives a row as it was when the look began; in between `meanwhile` happens."""

    def __init__(self, row: rows.Credential | None) -> None:
        self.row = row
        self.client: rows.Credential | None = None
        self.looks = 0
        self.meanwhile: Callable[[], None] = lambda: None

    async def one(self, row: type[Any], *where: Any) -> rows.Credential | None:
        is_client = len(where) > 1
        seen = self.client if is_client else self.row
        if not is_client:
            self.looks += 1
            self.meanwhile()
        for _ in range(3):
            await asyncio.sleep(0)
        return seen


def a_key(**fields: Any) -> rows.Credential:
    made: dict[str, Any] = dict(project_id="p", id="key_1", kind="key", name="k", scopes="admin", created_at=0)
    made |= {"sha256": sha256(SECRET)}
    return rows.Credential(**(made | fields))


def changed(row: rows.Credential, **fields: Any) -> rows.Credential:
    after = rows.copy_of(row)
    for name, value in fields.items():
        setattr(after, name, value)
    return after


def access_over(store: Store, clock: Clock | None = None) -> Access:
    reader: Any = store
    return Access(reader, clock or Clock(), "gateway")


async def is_good(access: Access, secret: str = SECRET) -> bool:
    try:
        await access.authenticate(secret)
    except Unauthorized:
        return False
    return True


async def told() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_what_was_read_before_a_commit_does_not_count_after_it() -> None:
    before = a_key()
    store = Store(before)
    access = access_over(store)

    def revoke() -> None:
        if store.looks == 1:
            store.row = changed(before, revoked_at=5)
            access.observe([(before, store.row)])

    store.meanwhile = revoke
    assert not await is_good(access)
    assert store.looks == 2


async def test_a_secret_that_is_made_while_it_is_looked_for_in_vain_works_at_once() -> None:
    store = Store(None)
    access = access_over(store)

    def make() -> None:
        if store.looks == 1:
            store.row = a_key()
            access.observe([(None, store.row)])

    store.meanwhile = make
    assert await is_good(access)
    store.row = None
    assert await is_good(access) and store.looks == 2


async def test_one_that_was_refused_works_at_once_when_it_is_made() -> None:
    store = Store(None)
    access = access_over(store)
    assert not await is_good(access) and not await is_good(access)
    assert store.looks == 1
    store.row = a_key()
    access.observe([(None, store.row)])
    await told()
    assert await is_good(access)


async def test_new_credentials_of_others_do_not_keep_anybody_from_being_known() -> None:
    store = Store(a_key())
    access = access_over(store)
    store.meanwhile = lambda: access.observe([(None, a_key(id=f"key_{store.looks}", sha256=sha256(f"{store.looks}")))])
    assert await is_good(access)
    assert store.looks == 1 < MOST_LOOKS


async def test_what_is_known_costs_no_look_and_ends_by_the_clock() -> None:
    store, clock = Store(a_key(expires_at=2 * SECOND)), Clock()
    access = access_over(store, clock)
    assert await is_good(access) and await is_good(access)
    assert store.looks == 1
    clock.time = 2 * SECOND
    assert not await is_good(access)


@pytest.mark.parametrize(
    ("fields", "is_over"),
    [
        ({"revoked_at": 5}, True),
        ({"name": "other"}, False),
        ({"sha256": sha256(FRESH), "previous_sha256": sha256(SECRET), "previous_expires_at": SECOND}, True),
        ({"sha256": sha256(FRESH), "previous_sha256": sha256(SECRET), "previous_expires_at": 9 * SECOND}, False),
        # Rotated a second time: what was the previous one is nobody's any more.
        ({"sha256": sha256(FRESH), "previous_sha256": sha256("x"), "previous_expires_at": 9 * SECOND}, True),
    ],
)
async def test_what_is_open_ends_with_the_secret_that_it_was_opened_with(fields: dict[str, Any], is_over: bool) -> None:
    before = a_key()
    store = Store(before)
    access = access_over(store)
    ended = asyncio.Event()
    held = access.hold(await access.authenticate(SECRET), ended.set)
    store.row = changed(before, **fields)
    access.observe([(before, store.row)])
    await told()
    await asyncio.sleep(0.001)
    assert ended.is_set() == is_over == (not await is_good(access))
    access.release(held)


async def test_what_is_open_ends_by_itself_when_the_credential_does_or_the_overlap() -> None:
    before = a_key(expires_at=9 * SECOND)
    store = Store(before)
    access = access_over(store)
    ended = asyncio.Event()
    access.hold(await access.authenticate(SECRET), ended.set)
    after = changed(before, sha256=sha256(FRESH), previous_sha256=sha256(SECRET), previous_expires_at=SECOND + 2_000)
    access.observe([(before, after)])
    async with asyncio.timeout(5):
        await ended.wait()


async def test_tokens_end_with_their_client() -> None:
    token = a_key(id="token_1", kind="token", client_id="client_1")
    client = a_key(id="client_1", kind="client", sha256=sha256("client's"))
    store = Store(token)
    store.client = client
    access = access_over(store)
    ended = asyncio.Event()
    access.hold(await access.authenticate(SECRET), ended.set)
    store.client = changed(client, revoked_at=5)
    access.observe([(client, store.client)])
    await told()
    assert ended.is_set()
    assert not await is_good(access)


async def test_a_clients_secret_is_no_bearer_credential() -> None:
    assert not await is_good(access_over(Store(a_key(kind="client"))))

"""API keys and projects over REST: every bad input names its field, secrets are shown once, ends are for good."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agent_orchestration.scopes import SCOPES
from tests.access.world import Project, World

LONG = "n" * 201
NEW: dict[str, Any] = {"name": "n", "scopes": ["tasks:read"]}
PAST = "2020-01-01T00:00:00Z"
SOON = (datetime.now(UTC) + timedelta(hours=1)).isoformat().replace("+00:00", "Z")

BAD: list[tuple[str, str, Any, str]] = [
    ("POST", "/keys", {}, "name"),
    ("POST", "/keys", {"name": "n"}, "scopes"),
    ("POST", "/keys", {"scopes": ["admin"]}, "name"),
    ("POST", "/keys", NEW | {"name": ""}, "name"),
    ("POST", "/keys", NEW | {"name": LONG}, "name"),
    ("POST", "/keys", NEW | {"name": "a\0b"}, "name"),
    ("POST", "/keys", NEW | {"name": 5}, "name"),
    ("POST", "/keys", NEW | {"scopes": []}, "scopes"),
    ("POST", "/keys", NEW | {"scopes": "admin"}, "scopes"),
    ("POST", "/keys", NEW | {"scopes": ["admin", "root"]}, "scopes[1]"),
    ("POST", "/keys", NEW | {"scopes": ["Admin"]}, "scopes[0]"),
    ("POST", "/keys", NEW | {"scopes": [""]}, "scopes[0]"),
    ("POST", "/keys", NEW | {"scopes": ["tasks:read agents:read"]}, "scopes[0]"),
    ("POST", "/keys", NEW | {"scopes": ["tasks:read"] * 21}, "scopes"),
    ("POST", "/keys", NEW | {"scopes": ["s" * 65]}, "scopes[0]"),
    ("POST", "/keys", NEW | {"expires_at": PAST}, "expires_at"),
    ("POST", "/keys", NEW | {"expires_at": "tomorrow"}, "expires_at"),
    ("POST", "/keys", NEW | {"expires_at": "2099-01-01"}, "expires_at"),
    ("POST", "/keys", NEW | {"expires_in": 0}, "expires_in"),
    ("POST", "/keys", NEW | {"expires_in": -1}, "expires_in"),
    ("POST", "/keys", NEW | {"expires_in": 315360001}, "expires_in"),
    ("POST", "/keys", NEW | {"expires_in": "1h"}, "expires_in"),
    ("POST", "/keys", NEW | {"expires_in": 5, "expires_at": SOON}, "expires_in"),
    ("POST", "/keys", NEW | {"agent_id": "agent_none", "scopes": ["runner:connect"]}, "agent_id"),
    ("POST", "/keys", NEW | {"agent_id": "", "scopes": ["runner:connect"]}, "agent_id"),
    ("POST", "/keys", NEW | {"agent_type": "t"}, "scopes"),
    ("POST", "/keys", NEW | {"agent_type": "t", "scopes": ["admin"]}, "scopes"),
    ("POST", "/keys", NEW | {"agent_type": "t", "scopes": ["runner:connect", "tasks:read"]}, "scopes"),
    ("POST", "/keys", NEW | {"agent_type": "t" * 101, "scopes": ["runner:connect"]}, "agent_type"),
    ("POST", "/keys", NEW | {"agent_type": "t", "agent_id": "x", "scopes": ["runner:connect"]}, "agent_type"),
    ("POST", "/keys", NEW | {"rate_limits": {"per_hour": -1}}, "rate_limits.per_hour"),
    ("POST", "/keys", NEW | {"rate_limits": {"per_minute": 1_000_000_001}}, "rate_limits.per_minute"),
    ("POST", "/keys", NEW | {"rate_limits": {"per_day": 1}}, "rate_limits.per_day"),
    ("POST", "/keys", NEW | {"project_id": "project_default"}, "project_id"),
    ("POST", "/keys", NEW | {"key": "my own secret"}, "key"),
    ("PUT", "/keys/<key>", {"name": ""}, "name"),
    ("PUT", "/keys/<key>", {"name": LONG}, "name"),
    ("PUT", "/keys/<key>", {"scopes": ["admin"]}, "scopes"),
    ("PUT", "/keys/<key>", {"agent_id": "x"}, "agent_id"),
    ("PUT", "/keys/<key>", {"revoked_at": None, "expires_at": SOON}, "expires_at"),
    ("PUT", "/keys/<key>", {"key_id": "key_other"}, "key_id"),
    ("POST", "/keys/<key>/rotate", {"overlap": -1}, "overlap"),
    ("POST", "/keys/<key>/rotate", {"overlap": 2592001}, "overlap"),
    ("POST", "/keys/<key>/rotate", {"overlap": "1h"}, "overlap"),
    ("POST", "/projects", {}, "name"),
    ("POST", "/projects", {"name": ""}, "name"),
    ("POST", "/projects", {"name": LONG}, "name"),
    ("POST", "/projects", {"name": "n", "id": "project_mine"}, "id"),
    ("GET", "/keys?page=0", None, "page"),
    ("GET", "/keys?limit=101", None, "limit"),
    ("GET", "/keys?name=n", None, "name"),
    ("GET", "/projects?limit=0", None, "limit"),
]


def as_admin(project: Project, **more: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {project.admin}", **more}


@pytest.mark.parametrize(("method", "path", "body", "field"), BAD)
async def test_bad_input_names_its_field(shared: World, method: str, path: str, body: Any, field: str) -> None:
    if "<key>" in path:
        path = path.replace("<key>", (await shared.default.key("tasks:read"))["id"])
    answer = await shared.client.request(method, path, json=body, headers=as_admin(shared.default))
    assert answer.status_code == 400, answer.text
    assert field in [each["field"] for each in answer.json()["error"]["details"]]


async def test_a_secret_is_shown_when_it_is_made_and_never_again(shared: World) -> None:
    own = shared.own
    made = await own.key("tasks:read", name="mine", expires_in=3600, rate_limits={"per_hour": 0})
    secret = made.pop("key")
    assert secret.startswith("ao_live_") and len(secret) == 51 and made["prefix"] == secret[:12]
    assert made["rate_limits"] == {"per_hour": 0}
    assert await own.call("GET", f"/keys/{made['id']}") == {"data": made}
    listed = (await own.call("GET", "/keys?limit=100"))["data"]
    assert made in listed and not any("key" in each for each in listed)
    changed = (await own.call("PUT", f"/keys/{made['id']}", {"name": "other"}))["data"]
    assert changed == made | {"name": "other"}
    # A change of nothing changes nothing.
    nothings: list[dict[str, Any]] = [{}, {"rate_limits": {}}]
    for nothing in nothings:
        assert (await own.call("PUT", f"/keys/{made['id']}", nothing))["data"] == changed
    rotated = await own.post(f"/keys/{made['id']}/rotate")
    assert rotated["key"] not in (secret, None) and "previous_expires_at" in rotated
    assert "key" not in (await own.call("DELETE", f"/keys/{made['id']}"))["data"]


async def test_what_is_revoked_stays_so(shared: World) -> None:
    own = shared.own
    made = await own.key("tasks:read")
    first = await own.call("DELETE", f"/keys/{made['id']}")
    assert await own.call("DELETE", f"/keys/{made['id']}") == first
    for method, path, body in (("POST", "/rotate", {}), ("PUT", "", {"name": "back"}), ("PUT", "", {})):
        answer = await shared.client.request(method, f"/keys/{made['id']}{path}", json=body, headers=as_admin(own))
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "conflict")
    assert (await own.call("GET", f"/keys/{made['id']}"))["data"]["revoked_at"] == first["data"]["revoked_at"]


async def test_a_repeat_leaves_the_secret_out(shared: World) -> None:
    for path, body in (("/keys", NEW), ("/projects", {"name": "again"})):
        headers = as_admin(shared.default, **{"Idempotency-Key": f"once{path}"})
        first = await shared.client.post(path, json=body, headers=headers)
        again = await shared.client.post(path, json=body, headers=headers)
        assert (first.status_code, again.status_code) == (201, 201)
        assert "ao_live_" in first.text and again.headers["Idempotent-Replayed"] == "true"
        shown = again.json()["data"]
        assert shown["id"] == first.json()["data"]["id"]
        assert "key" not in shown and "key" not in shown.get("api_key", {})
        secret = first.json()["data"].get("key") or first.json()["data"]["api_key"]["key"]
        assert secret not in again.text
        other = await shared.client.post(path, json=body | {"name": "other"}, headers=headers)
        assert (other.status_code, other.json()["error"]["code"]) == (409, "idempotency_conflict")


async def test_keys_by_page_newest_first(shared: World) -> None:
    project = await shared.project("pages")
    made = [(await project.key("tasks:read", name=f"key {number}"))["id"] for number in range(5)]
    pages = [await project.call("GET", f"/keys?limit=2&page={page}") for page in (1, 2, 3, 4)]
    ids = [each["id"] for page in pages for each in page["data"]]
    # The project's first key is the oldest.
    assert ids[:5] == made[::-1] and len(ids) == 6
    assert pages[3]["data"] == [] and pages[0]["pagination"] == {"page": 1, "limit": 2, "total": 6, "pages": 3}


async def test_projects_are_made_and_seen_by_the_default_one_alone(shared: World) -> None:
    refused = await shared.client.post("/projects", json={"name": "n"}, headers=as_admin(shared.own))
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "forbidden")
    assert [each["id"] for each in (await shared.own.call("GET", "/projects"))["data"]] == [shared.own.id]
    seen = {each["id"] for each in (await shared.default.call("GET", "/projects?limit=100"))["data"]}
    assert {shared.default.id, shared.own.id, shared.other.id} <= seen
    shown = (await shared.default.call("GET", f"/projects/{shared.own.id}"))["data"]
    assert shown.keys() == {"id", "name", "created_at"}
    # To see a project is not to act in it.
    key = await shared.own.key("tasks:read")
    answer = await shared.client.get(f"/keys/{key['id']}", headers=as_admin(shared.default))
    assert answer.status_code == 404


async def test_a_key_holds_what_it_was_made_with_in_one_order(shared: World) -> None:
    made = await shared.own.key(*reversed(SCOPES), *SCOPES[:3], name="é\u202e\U0001f511 " + "n" * 195)
    assert made["scopes"] == list(SCOPES)
    assert (await shared.own.call("GET", f"/keys/{made['id']}"))["data"]["name"].startswith("é")


async def test_what_has_expired_cannot_be_given_a_new_secret(shared: World) -> None:
    made = await shared.own.key("tasks:read", expires_in=0.001)
    answer = await shared.client.post(f"/keys/{made['id']}/rotate", json={}, headers=as_admin(shared.own))
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "conflict")


async def test_the_last_admin_key_can_end_itself(shared: World) -> None:
    project = await shared.project("closed")
    (only,) = (await project.call("GET", "/keys"))["data"]
    await project.call("DELETE", f"/keys/{only['id']}")
    assert (await shared.client.get("/keys", headers=as_admin(project))).status_code == 401

"""OAuth 2.0 client credentials in front of the real server: RFC 6749, RFC 7009 and RFC 8414 as clients know them."""

import json
from base64 import b64encode
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote_plus, urlencode

import httpx2
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.gateway.oauth_plane import DEADLINE, OAuthPlane, serving

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
JSON = {"Content-Type": "application/json"}
GRANT = "grant_type=client_credentials"


@pytest.fixture(scope="module")
def oauth(tmp_path_factory: pytest.TempPathFactory) -> Generator[OAuthPlane]:
    with serving(tmp_path_factory.mktemp("oauth")) as plane:
        yield plane


@pytest.fixture
def client(oauth: OAuthPlane) -> Generator[httpx2.Client]:
    with oauth.stranger() as client:
        yield client


def basic(client_id: str, secret: str) -> dict[str, str]:
    pair = f"{quote_plus(client_id)}:{quote_plus(secret)}"
    return {"Authorization": "Basic " + b64encode(pair.encode()).decode()}


def error(answer: httpx2.Response) -> str:
    """The code of a refusal, whose shape and headers are checked."""
    body = answer.json()
    assert body.keys() == {"error", "error_description"}
    assert all(" " <= each <= "~" and each not in '"\\' for each in body["error"] + body["error_description"])
    assert (answer.headers["cache-control"], answer.headers["pragma"]) == ("no-store", "no-cache")
    assert answer.headers["x-request-id"].startswith("req_")
    assert answer.headers.get("www-authenticate", "").startswith("Basic realm=") == (answer.status_code == 401)
    assert ("retry-after" in answer.headers) == (answer.status_code in (429, 503))
    return body["error"]


def test_a_token_as_printed_in_json_and_as_the_rfc_has_it(oauth: OAuthPlane, client: httpx2.Client) -> None:
    form = urlencode(oauth.body)
    own = basic(oauth.id, oauth.secret)
    answers = [
        client.post("/oauth/token", json=oauth.body),
        client.post("/oauth/token", json=oauth.body | {"scope": None, "audience": ["x"], "resource": {"a": 1}}),
        client.post("/oauth/token", content=form, headers=FORM),
        client.post("/oauth/token", content=f"{form}&scope=&scope_hint=%00&resource=a&resource=b", headers=FORM),
        client.post(
            "/oauth/token", content=form, headers={"Content-Type": "Application/X-WWW-Form-URLencoded; charset=UTF-8"}
        ),
        client.post("/oauth/token", content=GRANT, headers=FORM | basic(oauth.id, oauth.secret)),
        client.post(
            "/oauth/token", content=f"{GRANT}&client_id={oauth.id}", headers=FORM | basic(oauth.id, oauth.secret)
        ),
        client.post("/oauth/token", json={"grant_type": "client_credentials"}, headers=own),
        client.post("/oauth/token?", json=oauth.body, headers={"Authorization": "Bearer of something else"}),
    ]
    for answer in answers:
        assert answer.status_code == 200, answer.text
        body = answer.json()
        token = body.pop("access_token")
        assert body == {"token_type": "Bearer", "expires_in": 3600, "scope": "tasks:read tasks:write"}
        assert (answer.headers["cache-control"], answer.headers["pragma"]) == ("no-store", "no-cache")
        assert client.get("/v1/tasks", headers={"Authorization": f"Bearer {token}"}).status_code == 200


def test_a_token_has_the_scopes_that_were_asked_for(oauth: OAuthPlane, client: httpx2.Client) -> None:
    answer = client.post("/oauth/token", json=oauth.body | {"scope": "tasks:read"}).json()
    assert answer["scope"] == "tasks:read"
    refused = client.post(
        "/v1/tasks", json={"agent_id": "x", "type": "t"}, headers={"Authorization": f"Bearer {answer['access_token']}"}
    )
    assert refused.status_code == 403
    assert "tasks:write" in refused.json()["error"]["message"]
    for scope in ("agents:read", "admin", "tasks:read agents:read", "no:such", "a\0", "é", "x" * 5000):
        assert error(client.post("/oauth/token", json=oauth.body | {"scope": scope})) == "invalid_scope"


@pytest.mark.parametrize(
    ("more", "status", "code"),
    [
        ({"grant_type": None}, 400, "invalid_request"),
        ({"grant_type": ""}, 400, "invalid_request"),
        ({"grant_type": 1}, 400, "invalid_request"),
        ({"grant_type": {}}, 400, "invalid_request"),
        ({"grant_type": "password"}, 400, "unsupported_grant_type"),
        ({"grant_type": "authorization_code"}, 400, "unsupported_grant_type"),
        ({"client_id": None}, 401, "invalid_client"),
        ({"client_secret": None}, 401, "invalid_client"),
        ({"client_secret": ""}, 401, "invalid_client"),
        ({"client_secret": ["x"]}, 400, "invalid_request"),
        ({"client_secret": "wrong"}, 401, "invalid_client"),
        ({"client_secret": "ao_cs_\0"}, 401, "invalid_client"),
        ({"client_secret": "sécret"}, 401, "invalid_client"),
        ({"client_secret": "x" * 64 * 1024}, 401, "invalid_client"),
        ({"client_secret": "x" * 200_000}, 413, "invalid_request"),
        ({"client_id": "client_none"}, 401, "invalid_client"),
        ({"client_id": "client_\0"}, 401, "invalid_client"),
        ({"client_id": "c" * 64 * 1024}, 401, "invalid_client"),
    ],
)
def test_what_is_wrong_in_a_body(
    oauth: OAuthPlane, client: httpx2.Client, more: dict[str, Any], status: int, code: str
) -> None:
    body = {name: value for name, value in (oauth.body | more).items() if value is not None}
    sent = [client.post("/oauth/token", json=body)]
    if all(isinstance(value, str) for value in body.values()):
        sent.append(client.post("/oauth/token", content=urlencode(body), headers=FORM))
    for answer in sent:
        assert (answer.status_code, error(answer)) == (status, code)


def test_what_cannot_be_read_is_400(oauth: OAuthPlane, client: httpx2.Client) -> None:
    form = urlencode(oauth.body)
    text = json.dumps(oauth.body)
    refused: list[tuple[str | bytes, dict[str, str]]] = [
        (form, {}),
        (form, {"Content-Type": "text/plain"}),
        (form, {"Content-Type": "multipart/form-data; boundary=x"}),
        (form, {"Content-Type": "application/x-www-form-urlencoded; charset=latin-1"}),
        (form, {"Content-Type": ";;=;"}),
        (form, JSON),
        (text, FORM),
        ("", FORM),
        ("", {}),
        ("[]", JSON),
        ("null", JSON),
        ("[" * 100_000, JSON),
        ("1" * 100_000, JSON),
        ("NaN", JSON),
        (text + "x", JSON),
        (text.replace(oauth.secret, "\\ud800"), JSON),
        (text[:-1] + ', "client_id": "x"}', JSON),
        (text[:-1] + ', "scope": "", "scope": ""}', JSON),
        (text.encode("utf-16"), JSON),
        (form.encode() + b"&scope=\xff", FORM),
        (form + "&scope=%ff", FORM),
        (form + "&grant_type=client_credentials", FORM),
        (form + "&scope=tasks:read&scope=tasks:write", FORM),
        (form + "&a=b" * 1000, FORM),
        (form, FORM | basic(oauth.id, oauth.secret)),
        (f"{GRANT}&client_id=other", FORM | basic(oauth.id, oauth.secret)),
    ]
    for content, headers in refused:
        answer = client.post("/oauth/token", content=content, headers=headers)
        assert (answer.status_code, error(answer)) == (400, "invalid_request"), (content[:100], headers)
    for query in (form, "scope=tasks:read", "x"):
        answer = client.post(f"/oauth/token?{query}", json=oauth.body)
        assert (answer.status_code, error(answer)) == (400, "invalid_request")
    twice = [("Authorization", basic(oauth.id, oauth.secret)["Authorization"])] * 2
    answer = client.post("/oauth/token", content=GRANT, headers=[*FORM.items(), *twice])
    assert (answer.status_code, error(answer)) == (400, "invalid_request")


@pytest.mark.parametrize(
    "value",
    [
        "Basic",
        "Basic !",
        "Basic YQ",
        "Basic " + b64encode(b"no colon").decode(),
        "Basic " + b64encode(b"\xff:\xff").decode(),
        "Basic " + b64encode(b"%ff:%00").decode(),
        "Basic " + b64encode(b":").decode(),
        "Basic " + b64encode(b"a\0:b").decode(),
        "Basic " + b64encode(b"client:" + b"x" * 30_000).decode(),
        "Bearer ao_at_x",
        "Digest x",
    ],
)
def test_basic_that_names_no_client_is_401(client: httpx2.Client, value: str) -> None:
    answer = client.post("/oauth/token", content=GRANT, headers=FORM | {"Authorization": value})
    assert (answer.status_code, error(answer)) == (401, "invalid_client")


def test_a_client_fetches_no_more_tokens_than_it_may_make_calls(oauth: OAuthPlane, client: httpx2.Client) -> None:
    own_id, secret = oauth.create(rate_limits={"per_minute": 2})
    own = oauth.body | {"client_id": own_id, "client_secret": secret}
    assert [client.post("/oauth/token", json=own).status_code for _ in range(2)] == [200, 200]
    refused = client.post("/oauth/token", json=own)
    assert (refused.status_code, refused.json()["error"]) == (429, "too_many_requests")
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert client.post("/oauth/token", json=own | {"client_secret": "guessed"}).status_code == 401, "no guess counts"
    assert oauth.token(client), "nor do others' tokens"


def test_other_methods_are_405(client: httpx2.Client) -> None:
    for path, allowed in (
        ("/oauth/token", "POST"),
        ("/oauth/revoke", "POST"),
        ("/.well-known/oauth-authorization-server", "GET, HEAD"),
    ):
        for method in ("PUT", "DELETE", "OPTIONS", "PATCH", "GET" if allowed == "POST" else "POST"):
            answer = client.request(method, path)
            assert (answer.status_code, answer.headers["allow"]) == (405, allowed)


def test_a_revoked_token_is_refused_at_once_and_only_its_own_client_can_revoke_it(
    oauth: OAuthPlane, client: httpx2.Client
) -> None:
    def status(token: str) -> int:
        return client.get("/v1/tasks", headers={"Authorization": f"Bearer {token}"}).status_code

    first, second = oauth.token(client), oauth.token(client)
    assert (status(first), status(second)) == (200, 200)
    for wrong in ("ao_at_none", "\0", "é", "x" * 64 * 1024, oauth.secret, oauth.plane.api_key):
        answer = client.post("/oauth/revoke", json=oauth.body | {"token": wrong, "token_type_hint": "refresh_token"})
        assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    other_id, other_secret = oauth.create("admin")
    stolen = client.post("/oauth/revoke", data={"token": first}, headers=basic(other_id, other_secret))
    assert (stolen.status_code, status(first), status(second)) == (200, 200, 200)
    assert client.post("/oauth/revoke", data={"token": first}, headers=basic(oauth.id, oauth.secret)).status_code == 200
    assert client.post("/oauth/revoke", json=oauth.body | {"token": second}).status_code == 200
    assert (status(first), status(second)) == (401, 401)
    with oauth.plane.client() as admin:
        assert admin.get("/tasks").status_code == 200
    missing = client.post("/oauth/revoke", json=oauth.body)
    assert (missing.status_code, error(missing)) == (400, "invalid_request")
    for headers in ({}, basic(oauth.id, "wrong")):
        answer = client.post("/oauth/revoke", data={"token": "x"}, headers=headers)
        assert (answer.status_code, error(answer)) == (401, "invalid_client")


def test_a_socket_ends_with_its_token_and_with_its_client(oauth: OAuthPlane, client: httpx2.Client) -> None:
    client_id, secret = oauth.create("monitoring:read")
    own = {"client_id": client_id, "client_secret": secret}
    ended, kept = oauth.token(client, **own), oauth.token(client, **own)
    with opened(oauth, ended) as one, opened(oauth, kept) as other:
        assert client.post("/oauth/revoke", json=own | {"token": ended}).status_code == 200
        assert close_code(one) == 4401
        other.send('{"type": "ping"}')
        assert json.loads(other.recv(DEADLINE)) == {"type": "pong"}
        with oauth.plane.client() as admin:
            assert admin.delete(f"/oauth/clients/{client_id}").json()["data"]["revoked_at"]
        assert close_code(other) == 4401
    answer = client.post("/oauth/token", json=oauth.body | own)
    assert (answer.status_code, error(answer)) == (401, "invalid_client")


def test_a_socket_ends_when_its_token_does_unless_it_gets_another(oauth: OAuthPlane, client: httpx2.Client) -> None:
    client_id, secret = oauth.create("monitoring:read", token_lifetime=1)
    own = {"client_id": client_id, "client_secret": secret}
    lasting = oauth.token(client)
    with opened(oauth, oauth.token(client, **own)) as one, opened(oauth, oauth.token(client, **own)) as other:
        other.send(json.dumps({"type": "auth", "token": lasting}))
        assert json.loads(other.recv(DEADLINE)) == {"type": "authenticated"}
        assert close_code(one, 2.0) == 4401
        other.send('{"type": "ping"}')
        assert json.loads(other.recv(DEADLINE)) == {"type": "pong"}


def test_a_client_finds_the_endpoints_by_itself(oauth: OAuthPlane, client: httpx2.Client) -> None:
    path = "/.well-known/oauth-authorization-server"
    found = client.get(path).json()
    assert found["issuer"] == oauth.origin
    assert (found["grant_types_supported"], "tasks:read" in found["scopes_supported"]) == (["client_credentials"], True)
    answer = client.post(found["token_endpoint"], json=oauth.body)
    assert answer.status_code == 200
    revoked = client.post(found["revocation_endpoint"], json=oauth.body | {"token": answer.json()["access_token"]})
    assert revoked.status_code == 200
    assert client.get(path, headers={"Host": "ao.example:8443"}).json()["issuer"] == "http://ao.example:8443"
    assert client.get(path, headers={"Host": "a/b"}).status_code == 400


@contextmanager
def opened(oauth: OAuthPlane, token: str) -> Generator[ClientConnection]:
    with connect(f"ws://127.0.0.1:{oauth.plane.port}/v1/ws", proxy=None) as socket:
        socket.send(json.dumps({"type": "auth", "token": token}))
        assert json.loads(socket.recv(DEADLINE)) == {"type": "authenticated"}
        yield socket


def close_code(socket: ClientConnection, seconds: float = 1.0) -> int:
    """How it is closed, which takes so long at most."""
    with pytest.raises(ConnectionClosed) as closed:
        socket.recv(seconds)
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code

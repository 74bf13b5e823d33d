"""Whatever is sent to the token endpoint is read as it was meant, or refused with 400 or 401; nothing else happens."""

import json
from base64 import b64encode
from urllib.parse import quote_plus, urlencode

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent_orchestration.v1 import access_pb2
from ao_gateway import oauth_requests
from ao_gateway.errors import Headers
from ao_gateway.oauth_errors import OAuthError
from ao_gateway.oauth_requests import Client
from tests.fuzz.effort import fuzzed

FORM = b"application/x-www-form-urlencoded"
JSON = b"application/json"
NAMES = ("grant_type", "client_id", "client_secret", "scope", "token")
BASIC = b"Basic " + b64encode(b"client_1:ao_cs_1")
# What is sent is made of these, of parts of them and of anything.
PARTS = (
    b"grant_type=client_credentials&client_id=client_1&client_secret=ao_cs_1&scope=tasks%3Aread",
    b'{"grant_type":"client_credentials","client_id":"client_1","client_secret":"ao_cs_1","scope":"tasks:read"}',
    *(b"&", b"=", b"+", b"%", b"%00", b"%ff", b"%zz", b";", b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\0", b"\r\n"),
    *(b"[", b"{", b'"', b"\\ud800", b"\\u0000", b"null", b"1e999", b"NaN", b"[" * 5000, b"9" * 5000, b'"scope":"",'),
    *(BASIC, b"Basic", b"basic ", b"Bearer x", b":", b"Og==", b"Y2xpZW50", b"====", b" "),
    *(FORM, JSON, b"; charset=utf-8", b"; charset=utf-16", b"text/plain"),
)
SENT = st.lists(st.sampled_from(PARTS) | st.binary(max_size=8), max_size=6).map(b"".join)
TYPES = st.sampled_from((FORM, JSON)) | SENT
AUTHORIZATIONS = st.lists(st.just(BASIC) | SENT, max_size=2)
# Text that a form and JSON both can carry; an empty parameter is as one that is left out.
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)


@fuzzed(0.012)
@example(FORM, b"", PARTS[0], [])
@example(JSON, b"", PARTS[1], [])
@example(JSON, b"", b"[" * 100_000, [])
@given(TYPES, st.just(b"") | SENT, SENT, AUTHORIZATIONS)
def test_any_bytes_are_read_or_refused(
    content_type: bytes, query: bytes, body: bytes, authorizations: list[bytes]
) -> None:
    headers: Headers = [(b"authorization", each) for each in authorizations]
    try:
        parameters = oauth_requests.parameters(content_type, query, body)
        oauth_requests.check_grant(parameters)
        client = oauth_requests.client(headers, parameters)
        scope = oauth_requests.scope(parameters)
    except OAuthError as error:
        assert error.status in (400, 401)
        assert error.description.isascii()
        assert error.description.isprintable()
        return
    assert not query
    if client.could_be:
        request = access_pb2.IssueTokenRequest(client_id=client.id, client_secret=client.secret, scope=scope)
        assert access_pb2.IssueTokenRequest.FromString(request.SerializeToString()) == request


@fuzzed(0.005)
@given(st.dictionaries(st.sampled_from(NAMES), TEXTS), TEXTS, st.data())
def test_a_form_json_and_basic_say_the_same(wanted: dict[str, str], other: str, data: st.DataObject) -> None:
    form = urlencode(wanted | {"unknown": other}).encode()
    texts = json.dumps(wanted | {"unknown": [other]}, ensure_ascii=data.draw(st.booleans())).encode()
    assert oauth_requests.parameters(FORM, b"", form) == wanted
    assert oauth_requests.parameters(JSON, b"", texts) == wanted
    if wanted:
        name = data.draw(st.sampled_from(sorted(wanted)))
        for content_type, twice in (
            (FORM, form + f"&{name}=".encode()),
            (JSON, texts[:-1] + f',"{name}":""}}'.encode()),
        ):
            with pytest.raises(OAuthError, match=f"{name} is there more than once"):
                oauth_requests.parameters(content_type, b"", twice)
    pair = f"{quote_plus(other)}:{quote_plus(other[::-1])}".encode()
    headers: Headers = [(b"authorization", b"Basic " + b64encode(pair))]
    assert oauth_requests.client(headers, {}) == Client(other, other[::-1])

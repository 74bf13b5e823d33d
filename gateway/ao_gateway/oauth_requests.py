"""Requests to the OAuth endpoints: parameters as JSON or as a form, the client in them or in HTTP Basic. Pure.

RFC 6749 sections 2.3.1, 3.2 and 4.4, RFC 7009 section 2.1: a parameter without a value is one that is left out, an
unknown one is passed over, and none may be there twice.
"""

import binascii
import json
from base64 import b64decode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn
from urllib.parse import parse_qsl, unquote_plus

from ao_gateway.body import is_json, utf8_media_type
from ao_gateway.errors import Headers
from ao_gateway.oauth_errors import OAuthError, invalid_request, invalid_scope, unauthenticated

GRANT_TYPE: Final = "client_credentials"
MAX_CREDENTIAL: Final = 4096
MAX_SCOPE: Final = 1000
MAX_PARAMETERS: Final = 100
FORM: Final = b"application/x-www-form-urlencoded"
_SCHEME: Final = b"basic"
_KNOWN: Final = frozenset({"grant_type", "client_id", "client_secret", "scope", "token", "token_type_hint"})

Parameters = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Client:
    """Who asks, as it says itself."""

    id: str
    secret: str = field(repr=False)

    @property
    def could_be(self) -> bool:
        """Whether there can be such a client at all: both are printable ASCII, and not long."""
        return all(
            each and len(each) <= MAX_CREDENTIAL and each.isascii() and each.isprintable()
            for each in (self.id, self.secret)
        )


def parameters(content_type: bytes, query: bytes, body: bytes) -> Parameters:
    """What the body says. OAuthError when it cannot be read, says something twice, or the query says something too."""
    if query:
        raise invalid_request("Parameters belong into the body, not into the query")
    if not body.strip(b" \t\r\n"):
        return {}
    if is_json(content_type):
        pairs = _json_pairs(body)
    elif utf8_media_type(content_type) == FORM:
        pairs = _form_pairs(body)
    else:
        raise invalid_request("The Content-Type must be application/json or application/x-www-form-urlencoded")
    found: dict[str, str] = {}
    for name, value in pairs:
        if name not in _KNOWN:
            continue
        if name in found:
            raise invalid_request(f"{name} is there more than once")
        if value is None:
            value = ""
        if not isinstance(value, str):
            raise invalid_request(f"{name} must be a string")
        if not _is_text(value):
            raise invalid_request(f"{name} is not text")
        found[name] = value
    return {name: value for name, value in found.items() if value}


def check_grant(parameters: Parameters) -> None:
    """OAuthError when another grant than that of client credentials is asked for, or none."""
    grant_type = parameters.get("grant_type")
    if grant_type is None:
        raise invalid_request("grant_type is missing")
    if grant_type != GRANT_TYPE:
        raise OAuthError("unsupported_grant_type", f"The grant_type must be {GRANT_TYPE}")


def client(headers: Headers, parameters: Parameters) -> Client:
    """The client that asks. OAuthError when none is named, or in two ways."""
    client_id, secret = parameters.get("client_id"), parameters.get("client_secret")
    basic = _basic(headers)
    if basic is not None:
        if secret is not None:
            raise invalid_request("The client's secret is both in the Authorization header and in the body")
        if client_id not in (None, basic.id):
            raise invalid_request("client_id is another one than in the Authorization header")
        return basic
    if client_id is None or secret is None:
        raise unauthenticated("The client's id and secret are needed, in HTTP Basic or in the body")
    return Client(client_id, secret)


def scope(parameters: Parameters) -> str | None:
    """The scopes asked for, with spaces between them. OAuthError for what cannot be a scope."""
    given = parameters.get("scope")
    if given is not None and (len(given) > MAX_SCOPE or not given.isascii() or not given.isprintable()):
        raise invalid_scope()
    return given


def token(parameters: Parameters) -> str:
    """The token to revoke; empty for one that cannot exist. OAuthError when none is named."""
    given = parameters.get("token")
    if given is None:
        raise invalid_request("token is missing")
    return given if len(given) <= MAX_CREDENTIAL else ""


def _basic(headers: Headers) -> Client | None:
    """The client that HTTP Basic names; None when there is no such header. Other schemes name no client."""
    values = [value for name, value in headers if name == b"authorization"]
    if len(values) > 1:
        raise invalid_request("There is more than one Authorization header")
    scheme, _, encoded = b"".join(values).strip(b" \t").partition(b" ")
    if scheme.lower() != _SCHEME:
        return None
    try:
        name, colon, secret = b64decode(encoded.strip(b" "), validate=True).decode().partition(":")
        decoded = Client(unquote_plus(name, errors="strict"), unquote_plus(secret, errors="strict"))
    except (binascii.Error, UnicodeDecodeError):
        decoded, colon = None, ""
    if decoded is None or not colon:
        raise unauthenticated("The Authorization header must be: Basic base64(client_id:client_secret)")
    return decoded


def _form_pairs(body: bytes) -> Iterable[tuple[str, object]]:
    try:
        return parse_qsl(
            body.decode(),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=MAX_PARAMETERS,
        )
    except UnicodeDecodeError:
        raise invalid_request("The body is not UTF-8") from None
    except ValueError:
        raise invalid_request(f"There are more than {MAX_PARAMETERS} parameters") from None


class _Object(list[tuple[str, Any]]):
    """A JSON object with all that it says, in order."""


def _json_pairs(body: bytes) -> Iterable[tuple[str, object]]:
    try:
        decoded: object = json.loads(body.decode(), object_pairs_hook=_Object, parse_constant=_refuse_constant)
    except UnicodeDecodeError:
        raise invalid_request("The body is not UTF-8") from None
    except (ValueError, RecursionError):
        raise invalid_request("The body is not JSON") from None
    if not isinstance(decoded, _Object):
        raise invalid_request("The body must be a JSON object")
    return decoded


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _is_text(value: str) -> bool:
    """Whether it is Unicode without lone surrogates, which JSON can hold."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True

"""The OAuth endpoints in the OpenAPI document: they are those of the RFCs, so that no proto describes them."""

from typing import Any, Final

from agent_orchestration.scopes import SCOPES
from ao_gateway.oauth import REVOCATION_PATH, TOKEN_PATH
from ao_gateway.oauth_metadata import METADATA_PATH, document
from ao_gateway.oauth_requests import GRANT_TYPE
from ao_gateway.openapi_answers import HEADERS, REQUEST_ID

_TEXT: Final = {"type": "string"}
_CLIENT: Final = {
    "client_id": {"description": "Unless HTTP Basic names the client.", **_TEXT},
    "client_secret": _TEXT,
}
_EXAMPLE: Final = {"client_id": "your_client_id", "client_secret": "your_client_secret"}
_REFUSALS: Final = {
    400: "The request is wrong: `invalid_request`, `invalid_scope`, `unsupported_grant_type`.",
    401: "`invalid_client`: the client is not named, unknown or revoked, or its secret is wrong.",
    408: "The body did not arrive in time.",
    413: "The body is larger than 128 KiB.",
    415: "The body has a `Content-Encoding`.",
    429: "`too_many_requests`: too many logins from this address have failed.",
    503: "`temporarily_unavailable`: the server is away or has no room just now.",
}
_HEADERS_OF: Final = {
    401: {"WWW-Authenticate": HEADERS["Challenge"]},
    429: {"Retry-After": HEADERS["RetryAfter"]},
    503: {"Retry-After": HEADERS["RetryAfter"]},
}

SCHEMAS: Final[dict[str, Any]] = {
    "AccessToken": {
        "type": "object",
        "properties": {
            "access_token": _TEXT,
            "token_type": {"const": "Bearer"},
            "expires_in": {"description": "Seconds.", "type": "integer"},
            "scope": {"description": "The scopes it has, with spaces between them.", **_TEXT},
        },
        "required": ["access_token", "token_type", "expires_in", "scope"],
    },
    "OAuthError": {
        "description": "What RFC 6749 has in place of `Error`.",
        "type": "object",
        "properties": {"error": _TEXT, "error_description": _TEXT},
        "required": ["error", "error_description"],
    },
}
SECURITY_SCHEMES: Final[dict[str, Any]] = {
    "client": {"type": "http", "scheme": "basic", "description": "The id and the secret of an OAuth client."}
}


def paths() -> dict[str, Any]:
    """The paths, each with its operation."""
    token = {
        "grant_type": {"const": GRANT_TYPE},
        "scope": {"description": f"Some of {', '.join(SCOPES)}; absent: all that the client has.", **_TEXT},
        **_CLIENT,
    }
    return {
        TOKEN_PATH: {
            "post": _operation(
                "IssueToken",
                "Gives an access token to an OAuth client (RFC 6749, section 4.4), which works as a key does.",
                _body(token, "grant_type", {"grant_type": GRANT_TYPE, **_EXAMPLE}),
                _answer("The token.", {"$ref": "#/components/schemas/AccessToken"}),
            )
        },
        REVOCATION_PATH: {
            "post": _operation(
                "RevokeToken",
                "Ends an access token of the client at once (RFC 7009). One that is unknown stays as it is.",
                _body({"token": _TEXT, **_CLIENT}, "token", {"token": "ao_at_…", **_EXAMPLE}),
                _answer("There is no such token any more.", {"type": "object", "properties": {}}),
            )
        },
        METADATA_PATH: {
            "get": {
                "operationId": "GetOAuthMetadata",
                "tags": ["OAuth"],
                "summary": "Get OAuth metadata",
                "description": "What OAuth clients can find out by themselves (RFC 8414).",
                "security": [],
                "responses": {
                    "200": _answer("The endpoints, and what they take.", _metadata()),
                    "400": {"$ref": "#/components/responses/BadRequest"},
                },
            }
        },
    }


def _operation(name: str, text: str, body: dict[str, Any], success: dict[str, Any]) -> dict[str, Any]:
    return {
        "operationId": name,
        "tags": ["OAuth"],
        "summary": name.replace("Token", " token"),
        "description": text,
        "security": [{"client": []}, {}],
        "requestBody": body,
        "responses": {"200": success} | {str(status): _refusal(status) for status in _REFUSALS},
    }


def _body(properties: dict[str, Any], required: str, example: dict[str, str]) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "required": [required]}
    return {
        "required": True,
        "content": {
            "application/json": {"schema": schema, "example": example},
            "application/x-www-form-urlencoded": {"schema": schema},
        },
    }


def _answer(text: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": text, "headers": REQUEST_ID, "content": {"application/json": {"schema": schema}}}


def _refusal(status: int) -> dict[str, Any]:
    answer = _answer(_REFUSALS[status], {"$ref": "#/components/schemas/OAuthError"})
    return answer | {"headers": REQUEST_ID | _HEADERS_OF.get(status, {})}


def _metadata() -> dict[str, Any]:
    values: dict[str, Any] = document("")
    properties = {
        name: _TEXT if isinstance(value, str) else {"type": "array", "items": _TEXT} for name, value in values.items()
    }
    return {"type": "object", "properties": properties, "required": list(properties)}

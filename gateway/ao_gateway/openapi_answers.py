"""What every route can answer beside its success: the error's one shape, by HTTP status."""

from collections.abc import Iterator
from typing import Any, Final

from ao_gateway.bindings import Binding

ERROR: Final[dict[str, Any]] = {
    "description": "What every answer holds that is not a success.",
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "code": {
                    "description": "A stable word, such as `validation_error` or `not_found`.",
                    "type": "string",
                },
                "message": {"description": "For people.", "type": "string"},
                "details": {
                    "description": "Each bad field, if fields are to blame.",
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {
                            "field": {
                                "description": "Its path as it was sent, such as `tasks[3].type`.",
                                "type": "string",
                            },
                            "message": {"type": "string"},
                        },
                        "required": ["field", "message"],
                    },
                },
                "request_id": {
                    "description": "As in the header `X-Request-Id`; it finds the request in the log.",
                    "type": "string",
                },
            },
            "required": ["code", "message", "details", "request_id"],
        }
    },
    "required": ["error"],
}

HEADERS: Final[dict[str, Any]] = {
    "RequestId": {
        "description": "The id that the request came with in this header, or else a new one.",
        "schema": {"type": "string"},
    },
    "RetryAfter": {"description": "Seconds after which to try again.", "schema": {"type": "integer", "minimum": 1}},
    "Challenge": {"description": "Says that a bearer credential is asked for.", "schema": {"type": "string"}},
}

REQUEST_ID: Final = {"X-Request-Id": {"$ref": "#/components/headers/RequestId"}}
_RETRY_AFTER: Final = {"Retry-After": {"$ref": "#/components/headers/RetryAfter"}}
_CHALLENGE: Final = {"WWW-Authenticate": {"$ref": "#/components/headers/Challenge"}}

_ERRORS: Final[dict[int, tuple[str, str, dict[str, Any]]]] = {
    400: ("BadRequest", "Something in the request is wrong; `details` names the fields.", {}),
    401: ("Unauthorized", "The credential is missing, unknown or ended.", _CHALLENGE),
    403: ("Forbidden", "The credential may not do this.", {}),
    404: ("NotFound", "There is no such object.", {}),
    408: ("RequestTimeout", "The request did not arrive, or was not answered, in time.", {}),
    409: ("Conflict", "The object is not in a state that allows it, or the idempotency key was used for another.", {}),
    413: ("PayloadTooLarge", "The body is larger than 4 MiB.", {}),
    415: ("UnsupportedMediaType", "The body is not `application/json`, or it has a `Content-Encoding`.", {}),
    429: ("TooManyRequests", "A limit is used up.", _RETRY_AFTER),
    500: ("InternalError", "A fault of ours.", {}),
    503: ("Unavailable", "The server is away or has no room just now. A write may have happened.", _RETRY_AFTER),
}


def error_statuses(binding: Binding) -> Iterator[int]:
    """The statuses with which a route can refuse."""
    for status in _ERRORS:
        has_cause = {
            404: bool(binding.parameters),
            409: binding.http_method != "GET",
            413: bool(binding.body),
            415: bool(binding.body),
        }
        if has_cause.get(status, True):
            yield status


def error(status: int) -> dict[str, Any]:
    """A reference to the refusal with that status."""
    return {"$ref": f"#/components/responses/{_ERRORS[status][0]}"}


def error_responses() -> dict[str, Any]:
    """The refusals, by the names that `error` refers to."""
    return {
        name: {
            "description": text,
            "headers": REQUEST_ID | headers,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
        }
        for name, text, headers in _ERRORS.values()
    }

"""What schemathesis is told of our API, in its own process."""

from typing import Any

import schemathesis

# It has only half of its types.
_library: Any = schemathesis
WAIT_SECONDS = 0.05


@_library.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """Keeps what is legal from being slow, or from being refused for a reason that the document cannot say."""
    _shorten_wait(case.query or {})
    if isinstance(case.body, dict):
        _agree(case.headers or {}, case.body)  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType] - JSON


@_library.check
def every_refusal_has_the_documented_shape(ctx: Any, response: Any, case: Any) -> None:
    """Also with statuses that the document does not list for the path, such as 405."""
    (request_id,) = response.headers["x-request-id"]
    if case.operation.path.startswith("/oauth/") and response.status_code != 405:
        assert response.status_code == 200 or response.json().keys() == {"error", "error_description"}
    elif response.status_code >= 400 and case.operation.path != "/v1/health":
        error = response.json()["error"]
        assert error.keys() == {"code", "message", "details", "request_id"}
        assert error["request_id"] == request_id


def _shorten_wait(query: Any) -> None:
    """Nobody runs the tasks, so that each wait would take up to a minute."""
    try:
        is_legal = WAIT_SECONDS < float(query["wait"]) <= 60
    except (TypeError, ValueError, KeyError):
        return
    if is_legal:
        query["wait"] = WAIT_SECONDS


def _agree(headers: Any, body: Any) -> None:
    """An idempotency key may stand in the header and in the body, if it is the same."""
    key, other = headers.get("Idempotency-Key"), body.get("idempotency_key")
    if isinstance(key, str) and isinstance(other, str) and 0 < len(other) <= 255 and other.isascii():
        body["idempotency_key"] = key.strip()

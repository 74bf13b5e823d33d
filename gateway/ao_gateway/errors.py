"""What a request can be refused with, its one printed shape, and the one table from gRPC to HTTP."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Final

import grpc
import msgspec
from google.rpc import code_pb2, error_details_pb2, status_pb2

RETRY_AFTER_SECONDS: Final = 1
# Of one request, and the characters of a name that the client made up.
MAX_VIOLATIONS: Final = 100
SHOWN_NAME: Final = 100
STOPPING: Final = "The gateway is stopping"
DETAILS_KEY: Final = "grpc-status-details-bin"

Headers = list[tuple[bytes, bytes]]
# Of an answer that is the last one of its connection.
CLOSE: Final = (b"connection", b"close")


@dataclass(frozen=True, slots=True)
class Violation:
    """One bad field: its path as the client wrote it (`schedule.type`, `tasks[3].type`) and what is wrong with it."""

    field: str
    message: str


@dataclass(eq=False)
class Refusal(Exception):
    """An answer that is not a success. `status` is the HTTP status, `code` a stable word, `message` safe to show."""

    status: int
    code: str
    message: str
    details: Sequence[Violation] = ()
    headers: Headers = field(default_factory=lambda: [])

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


def invalid(violations: Sequence[Violation]) -> Refusal:
    """400 that names every bad field."""
    shown = "; ".join(f"{each.field}: {each.message}" for each in violations[:3])
    return Refusal(400, "validation_error", shown, violations)


def malformed(message: str) -> Refusal:
    """400 for a request that is wrong as a whole."""
    return Refusal(400, "validation_error", message)


def unauthorized(message: str) -> Refusal:
    """401 with the challenge that HTTP asks for."""
    return Refusal(401, "unauthorized", message, headers=[(b"www-authenticate", b"Bearer")])


def forbidden(message: str) -> Refusal:
    """403: the credential is good, but not for this."""
    return Refusal(403, "forbidden", message)


def rate_limited(message: str, retry_after: int) -> Refusal:
    """429 that says when to come back, in whole seconds."""
    return Refusal(429, "rate_limited", message, headers=[_retry_after(retry_after)])


def unavailable(message: str, retry_after: int = RETRY_AFTER_SECONDS) -> Refusal:
    """503 that says when to come back, in whole seconds."""
    return Refusal(503, "unavailable", message, headers=[_retry_after(retry_after)])


def too_late(message: str) -> Refusal:
    """408: a deadline has passed."""
    return Refusal(408, "request_timeout", message)


def internal() -> Refusal:
    """500 that tells nothing of the inside."""
    return Refusal(500, "internal_error", "An internal error; the request id finds it in the log")


def not_found() -> Refusal:
    """404 of a path that nothing serves."""
    return Refusal(404, "not_found", "There is nothing at this path")


def method_not_allowed(methods: Iterable[str]) -> Refusal:
    """405 that names the methods which are allowed; HEAD goes with GET."""
    allowed = set(methods)
    if "GET" in allowed:
        allowed.add("HEAD")
    header = (b"allow", ", ".join(sorted(allowed)).encode())
    return Refusal(405, "method_not_allowed", "The path does not have this method", headers=[header])


def printed(refusal: Refusal, request_id: str) -> bytes:
    """The error's JSON."""
    return msgspec.json.encode({"error": contents(refusal, request_id)})


def contents(refusal: Refusal, request_id: str) -> dict[str, object]:
    """What is said of an error, wherever it is printed."""
    details = [{"field": each.field, "message": each.message} for each in refusal.details]
    return {"code": refusal.code, "message": refusal.message, "details": details, "request_id": request_id}


_TABLE: Final[dict[int, tuple[int, str]]] = {
    code_pb2.INVALID_ARGUMENT: (400, "validation_error"),
    code_pb2.OUT_OF_RANGE: (400, "validation_error"),
    code_pb2.UNAUTHENTICATED: (401, "unauthorized"),
    code_pb2.PERMISSION_DENIED: (403, "forbidden"),
    code_pb2.NOT_FOUND: (404, "not_found"),
    code_pb2.DEADLINE_EXCEEDED: (408, "request_timeout"),
    code_pb2.FAILED_PRECONDITION: (409, "conflict"),
    code_pb2.ALREADY_EXISTS: (409, "conflict"),
    code_pb2.ABORTED: (409, "conflict"),
    code_pb2.RESOURCE_EXHAUSTED: (429, "rate_limited"),
    code_pb2.CANCELLED: (503, "unavailable"),
    code_pb2.UNAVAILABLE: (503, "unavailable"),
}


def from_status(status: status_pb2.Status) -> Refusal:
    """The refusal that a server's status stands for; its details narrow the code and name the fields."""
    known = _TABLE.get(status.code)
    if known is None:
        return internal()
    http_status, code = known
    violations: list[Violation] = []
    headers: Headers = []
    retry_after: int | None = RETRY_AFTER_SECONDS if http_status == 503 else None
    info = error_details_pb2.ErrorInfo()
    bad = error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    for detail in status.details:
        if detail.Unpack(info):
            code = info.reason or code
        elif detail.Unpack(bad):
            violations += [Violation(each.field, each.description) for each in bad.field_violations]
        elif detail.Unpack(retry):
            retry_after = max(1, ceil(retry.retry_delay.ToTimedelta().total_seconds()))
    if retry_after is not None:
        headers.append(_retry_after(retry_after))
    if http_status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    return Refusal(http_status, code, status.message, violations, headers)


def from_rpc_error(error: grpc.aio.AioRpcError) -> Refusal:
    """As `from_status`, for a call that failed on its own stream. Text of the transport itself is not shown."""
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            return from_status(status_pb2.Status.FromString(value))
    code = error.code()
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return too_late("The server did not answer in time")
    if code is grpc.StatusCode.UNAUTHENTICATED:
        return unauthorized("The credential is not valid")
    return unavailable("The server cannot be reached")


def _retry_after(seconds: int) -> tuple[bytes, bytes]:
    return (b"retry-after", str(seconds).encode())

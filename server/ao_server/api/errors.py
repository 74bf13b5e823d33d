"""One table from what can be wrong to gRPC, and the rich status that carries the code word and the bad fields."""

from typing import Final

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

from ao_server.errors import (
    Conflict,
    CursorRejected,
    DeadlineExceeded,
    Forbidden,
    Invalid,
    NotFound,
    Problem,
    RateLimited,
    Superseded,
    Unauthorized,
    Unavailable,
)

DOMAIN: Final = "agent-orchestration"
DETAILS_KEY: Final = "grpc-status-details-bin"

_CODES: Final[dict[type[Problem], int]] = {
    Invalid: code_pb2.INVALID_ARGUMENT,
    Unauthorized: code_pb2.UNAUTHENTICATED,
    Forbidden: code_pb2.PERMISSION_DENIED,
    NotFound: code_pb2.NOT_FOUND,
    Conflict: code_pb2.FAILED_PRECONDITION,
    CursorRejected: code_pb2.OUT_OF_RANGE,
    Superseded: code_pb2.ABORTED,
    RateLimited: code_pb2.RESOURCE_EXHAUSTED,
    Unavailable: code_pb2.UNAVAILABLE,
    DeadlineExceeded: code_pb2.DEADLINE_EXCEEDED,
}
STATUS_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}


def status_of(problem: Problem) -> status_pb2.Status:
    """The status with ErrorInfo (code word), BadRequest (fields) and RetryInfo (when to come back)."""
    details = [_packed(error_details_pb2.ErrorInfo(reason=problem.code, domain=DOMAIN))]
    if problem.details:
        violations = [
            error_details_pb2.BadRequest.FieldViolation(field=each.field, description=each.message)
            for each in problem.details
        ]
        details.append(_packed(error_details_pb2.BadRequest(field_violations=violations)))
    if problem.retry_after is not None:
        delay = duration_pb2.Duration()
        delay.FromMicroseconds(round(problem.retry_after * 1e6))
        details.append(_packed(error_details_pb2.RetryInfo(retry_delay=delay)))
    code = _CODES.get(type(problem), code_pb2.INTERNAL)
    return status_pb2.Status(code=code, message=problem.message, details=details)


def _packed(
    message: error_details_pb2.ErrorInfo | error_details_pb2.BadRequest | error_details_pb2.RetryInfo,
) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed

"""One table from what can be wrong to gRPC, and the rich status that carries the code word and the bad fields."""

from collections.abc import Sequence
from typing import Final

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

from ao_server.errors import (
    Conflict,
    CursorRejected,
    DeadlineExceeded,
    FieldProblem,
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
# gRPC takes 8 KiB of metadata by default, 16 KiB at most; other things stand there too.
TRAILER_BYTES: Final = 4096
STATUS_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}


def trailer_of(problem: Problem) -> status_pb2.Status:
    """The status as it goes into trailers: with as many of the fields as there is room for."""
    room = TRAILER_BYTES
    fitting: list[FieldProblem] = []
    for each in problem.details:
        room -= len(each.field.encode()) + len(each.message.encode())
        if room < 0:
            break
        fitting.append(each)
    return status_of(problem, fitting)


def status_of(problem: Problem, fields: Sequence[FieldProblem] | None = None) -> status_pb2.Status:
    """The status with ErrorInfo (code word), BadRequest (fields) and RetryInfo (when to come back). `fields`: those
    that are named, None for all.
    """
    named = problem.details if fields is None else fields
    details = [_packed(error_details_pb2.ErrorInfo(reason=problem.code, domain=DOMAIN))]
    if named:
        violations = [
            error_details_pb2.BadRequest.FieldViolation(field=each.field, description=each.message) for each in named
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

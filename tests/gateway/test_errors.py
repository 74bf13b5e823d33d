import json

import pytest
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from ao_gateway import errors


def status(code: int, *details: Message) -> status_pb2.Status:
    packed = [any_pb2.Any() for _ in details]
    for each, detail in zip(packed, details, strict=True):
        each.Pack(detail)
    return status_pb2.Status(code=code, message="said", details=packed)


@pytest.mark.parametrize(
    ("code", "http", "word"),
    [
        (code_pb2.INVALID_ARGUMENT, 400, "validation_error"),
        (code_pb2.OUT_OF_RANGE, 400, "validation_error"),
        (code_pb2.UNAUTHENTICATED, 401, "unauthorized"),
        (code_pb2.PERMISSION_DENIED, 403, "forbidden"),
        (code_pb2.NOT_FOUND, 404, "not_found"),
        (code_pb2.DEADLINE_EXCEEDED, 408, "request_timeout"),
        (code_pb2.FAILED_PRECONDITION, 409, "conflict"),
        (code_pb2.UNAVAILABLE, 503, "unavailable"),
        (code_pb2.INTERNAL, 500, "internal_error"),
        (code_pb2.UNKNOWN, 500, "internal_error"),
        (code_pb2.UNIMPLEMENTED, 500, "internal_error"),
        (999, 500, "internal_error"),
    ],
)
def test_the_table(code: int, http: int, word: str) -> None:
    refusal = errors.from_status(status(code))
    assert (refusal.status, refusal.code) == (http, word)
    assert (refusal.message == "said") == (http != 500)


def test_details_narrow_the_code_and_name_the_fields() -> None:
    violation = error_details_pb2.BadRequest.FieldViolation(field="schedule.type", description="is required")
    refusal = errors.from_status(
        status(
            code_pb2.INVALID_ARGUMENT,
            error_details_pb2.ErrorInfo(reason="narrow", domain="agent-orchestration"),
            error_details_pb2.BadRequest(field_violations=[violation]),
        )
    )
    assert json.loads(errors.printed(refusal, "req_1")) == {
        "error": {
            "code": "narrow",
            "message": "said",
            "details": [{"field": "schedule.type", "message": "is required"}],
            "request_id": "req_1",
        }
    }


def test_when_to_come_back_is_in_whole_seconds() -> None:
    delay = duration_pb2.Duration(seconds=2, nanos=1000)
    refusal = errors.from_status(status(code_pb2.UNAVAILABLE, error_details_pb2.RetryInfo(retry_delay=delay)))
    assert dict(refusal.headers) == {b"retry-after": b"3"}
    assert dict(errors.from_status(status(code_pb2.UNAVAILABLE)).headers) == {b"retry-after": b"1"}

"""Values of the wire: strict readers from JSON and from query text, by field type; RFC 3339 and durations both ways.

A reader gives the value that protobuf takes, or raises Bad with what is wrong in words that follow the field's name.
"""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from math import isfinite
from typing import Any, Final

import msgspec
from google.protobuf import duration_pb2, timestamp_pb2
from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor

TIMESTAMP: Final = "google.protobuf.Timestamp"
DURATION: Final = "google.protobuf.Duration"
MAX_DURATION_SECONDS: Final = 315_576_000_000

Read = Callable[[bytes], Any]

_INTEGER: Final = re.compile(rb"-?(?:0|[1-9][0-9]*)")
_NUMBER: Final = re.compile(rb"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
_RFC3339: Final = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt]([0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]{1,9}))?(?:[Zz]|([-+])([0-9]{2}):([0-9]{2}))"
)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NAIVE_EPOCH: Final = datetime(1970, 1, 1)
_SECOND: Final = timedelta(seconds=1)
_text: Final = msgspec.json.Decoder(str)


class Bad(Exception):
    """What is wrong with a value."""


def json_reader(field: FieldDescriptor) -> Read:
    """The reader of one JSON value of the field's type, exact: no number in quotes, no enum by number."""
    words = query_reader(field)
    if field.type == field.TYPE_BOOL or _is_number(field):
        return words

    wrong_type = "must be a string" if field.enum_type is None else _choice(field.enum_type)

    def read(raw: bytes) -> Any:
        if raw[:1] != b'"':
            raise Bad(wrong_type)
        return words(_text.decode(raw).encode())

    return read


def query_reader(field: FieldDescriptor) -> Read:
    """The reader of one query parameter, not empty, of the field's type. TypeError for types without a text form."""
    if field.type == field.TYPE_STRING:
        return bytes.decode
    if field.type == field.TYPE_BOOL:
        return _read_bool
    if field.enum_type is not None:
        return _enum_reader(field.enum_type)
    if field.type in _INTEGERS:
        return _integer_reader(*_INTEGERS[field.type])
    if field.type in (field.TYPE_DOUBLE, field.TYPE_FLOAT):
        return _read_number
    name = field.message_type.full_name if field.message_type is not None else ""
    if name == TIMESTAMP:
        return _read_timestamp
    if name == DURATION:
        return _read_duration
    raise TypeError(f"{field.full_name}: the type has no text form")


def words_of(enum: EnumDescriptor) -> Mapping[str, int]:
    """An enum's values by the words that stand for them: lower-case, without the prefix. UNSPECIFIED has none."""
    prefix = enum.values[0].name.removesuffix("UNSPECIFIED")
    return {value.name.removeprefix(prefix).lower(): value.number for value in enum.values if value.number}


def print_timestamp(value: timestamp_pb2.Timestamp) -> str:
    """RFC 3339 in UTC with Z and 0, 3 or 6 digits, as few as hold the microseconds."""
    microseconds = value.nanos // 1000
    second = _print_second(value.seconds)
    if not microseconds:
        return second + "Z"
    if microseconds % 1000:
        return f"{second}.{microseconds:06d}Z"
    return f"{second}.{microseconds // 1000:03d}Z"


@lru_cache(maxsize=1000)
def _print_second(seconds: int) -> str:
    return (_NAIVE_EPOCH + timedelta(seconds=seconds)).isoformat()


def print_duration(value: duration_pb2.Duration) -> float:
    """Seconds; an integer when there is no fraction."""
    # One division of integers is rounded once: a sum of doubles would print 1.9897749999999998.
    return (value.seconds * 10**9 + value.nanos) / 10**9 if value.nanos else value.seconds


def print_number(value: float) -> float | None:
    """The number; an integer when there is no fraction; None for what JSON cannot say."""
    if not isfinite(value):
        return None
    # Above 2**53 every double is integral, and its digits would claim a precision that it does not have.
    return int(value) if value.is_integer() and abs(value) <= 2**53 else value


_INTEGERS: Final[dict[int, tuple[int, int]]] = {
    FieldDescriptor.TYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.TYPE_UINT64: (0, 2**64 - 1),
}
_MAX_INTEGER_TEXT: Final = 20


def _is_number(field: FieldDescriptor) -> bool:
    is_duration = field.message_type is not None and field.message_type.full_name == DURATION
    return is_duration or field.type in _INTEGERS or field.type in (field.TYPE_DOUBLE, field.TYPE_FLOAT)


def _read_bool(raw: bytes) -> bool:
    if raw not in (b"true", b"false"):
        raise Bad("must be true or false")
    return raw == b"true"


def _integer_reader(least: int, most: int) -> Read:
    def read(raw: bytes) -> int:
        if not _INTEGER.fullmatch(raw):
            raise Bad("must be an integer")
        value = int(raw) if len(raw) <= _MAX_INTEGER_TEXT else most + 1
        if not least <= value <= most:
            raise Bad(f"must be from {least} to {most}")
        return value

    return read


def _read_number(raw: bytes) -> float:
    if not _NUMBER.fullmatch(raw):
        raise Bad("must be a number")
    value = float(raw)
    if not isfinite(value):
        raise Bad("must be within the range of a double")
    return value


def _enum_reader(enum: EnumDescriptor) -> Read:
    words = words_of(enum)
    choice = _choice(enum)

    def read(raw: bytes) -> int:
        number = words.get(raw.decode())
        if number is None:
            raise Bad(choice)
        return number

    return read


def _choice(enum: EnumDescriptor) -> str:
    return "must be one of: " + ", ".join(words_of(enum))


def _read_timestamp(raw: bytes) -> timestamp_pb2.Timestamp:
    match = _RFC3339.fullmatch(raw.decode())
    if match is None:
        raise Bad("must be an RFC 3339 time with a zone, such as 2024-01-01T00:00:00Z")
    date, clock, fraction, sign, hours, minutes = match.groups()
    try:
        moment = datetime.fromisoformat(f"{date}T{clock}+00:00")
        if sign and not (int(hours) < 24 and int(minutes) < 60):
            raise ValueError
        offset = timedelta(hours=int(hours), minutes=int(minutes)) if sign else timedelta()
        moment = moment + offset if sign == "-" else moment - offset
    except (ValueError, OverflowError):
        raise Bad("is not a time of the calendar from year 1 to 9999") from None
    return timestamp_pb2.Timestamp(seconds=(moment - _EPOCH) // _SECOND, nanos=int((fraction or "").ljust(9, "0")))


def _read_duration(raw: bytes) -> duration_pb2.Duration:
    value = _read_number(raw)
    if abs(value) > MAX_DURATION_SECONDS:
        raise Bad(f"must be at most {MAX_DURATION_SECONDS} seconds")
    seconds = int(value)
    nanos = round((value - seconds) * 1e9)
    if not seconds and not nanos and value:
        # Next to nothing is still not zero: limits hold exactly.
        nanos = 1 if value > 0 else -1
    carry = int(nanos / 1e9)
    return duration_pb2.Duration(seconds=seconds + carry, nanos=nanos - carry * 1_000_000_000)

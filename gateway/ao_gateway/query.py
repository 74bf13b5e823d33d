"""The query of a request: flat parameters, each with its exact type, known by name."""

from collections.abc import Collection, Mapping
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from ao_gateway import scalars
from ao_gateway.errors import MAX_VIOLATIONS, SHOWN_NAME, Violation

# For each parameter its reader, and whether it may be given more than once.
Plan = Mapping[str, tuple[scalars.Read, bool]]

_WELL_KNOWN: Final = (scalars.TIMESTAMP, scalars.DURATION)


def plan(descriptor: Descriptor, taken: Collection[str]) -> Plan:
    """The parameters of a request: its fields but those `taken` elsewhere. Repeated messages are no parameters."""
    return {
        field.name: (_reader(field), field.is_repeated)
        for field in descriptor.fields
        if field.name not in taken and not _is_list_of_messages(field)
    }


def read(plan: Plan, query: bytes, violations: list[Violation]) -> dict[str, Any]:
    """The fields that a query fills; what is wrong with it is added to the violations."""
    fields: dict[str, Any] = {}
    for pair in query.split(b"&"):
        if not pair:
            continue
        if len(violations) >= MAX_VIOLATIONS:
            break
        raw_name, _, raw_value = pair.partition(b"=")
        name = _unquoted(raw_name).decode(errors="replace")
        if name not in plan:
            violations.append(Violation(name[:SHOWN_NAME], "is not a parameter of this path"))
            continue
        read_value, is_repeated = plan[name]
        try:
            value = read_value(_text(raw_value))
        except scalars.Bad as bad:
            violations.append(Violation(name, str(bad)))
            continue
        if is_repeated:
            fields.setdefault(name, []).append(value)
        elif name in fields:
            violations.append(Violation(name, "must be given once"))
        else:
            fields[name] = value
    return fields


def _text(raw: bytes) -> bytes:
    text = _unquoted(raw)
    if not text:
        raise scalars.Bad("must not be empty")
    if b"\0" in text:
        raise scalars.Bad("must not contain U+0000")
    try:
        text.decode()
    except UnicodeDecodeError:
        raise scalars.Bad("must be UTF-8") from None
    return text


def _unquoted(raw: bytes) -> bytes:
    return unquote_to_bytes(raw.replace(b"+", b" "))


def _is_list_of_messages(field: FieldDescriptor) -> bool:
    return field.is_repeated and field.message_type is not None and field.message_type.full_name not in _WELL_KNOWN


def _reader(field: FieldDescriptor) -> scalars.Read:
    read_value = scalars.query_reader(field)
    if field.message_type is None or field.message_type.full_name != scalars.TIMESTAMP:
        return read_value

    # An unescaped + before the zone comes as a space.
    return lambda raw: read_value(raw.replace(b" ", b"+"))

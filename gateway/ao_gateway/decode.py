"""Strict decoding: JSON body, query and path to a request message, by a plan compiled once from the descriptors.

Every value must have its exact JSON type, and every name must be known. All that is wrong is collected, so that a
client hears of it at once.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from typing import Any, Final, TypeVar
from urllib.parse import unquote_to_bytes

import msgspec
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from agent_orchestration import free_json
from agent_orchestration.v1 import options_pb2
from ao_gateway import scalars
from ao_gateway.bindings import WHOLE_BODY, Binding, message_class
from ao_gateway.errors import Violation, invalid, malformed

SHOWN_NAME: Final = 100
MAX_VIOLATIONS: Final = 100

Fields = dict[str, Any]
_Items = TypeVar("_Items", list[msgspec.Raw], dict[str, msgspec.Raw])
# Given the text of one JSON value, its path and the list of violations, gives what protobuf takes; when it adds a
# violation the value is not used.
_Read = Callable[[bytes, str, list[Violation]], Any]

_any: Final = msgspec.json.Decoder(msgspec.Raw)
_object: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_array: Final = msgspec.json.Decoder(list[msgspec.Raw])
_TIME_READERS: Final = (scalars.TIMESTAMP,)


class RequestDecoder:
    """Makes the requests of one route."""

    def __init__(self, binding: Binding) -> None:
        self._class = message_class(binding.request)
        self._parameters = binding.parameters
        self._body = binding.body
        taken = set(binding.parameters)
        if binding.body == WHOLE_BODY:
            self._read_body = _message_reader(binding.request, frozenset(taken))
            self._query = {}
        else:
            self._query = _query_plan(binding.request, taken | {binding.body})
            if binding.body:
                self._read_body = _field_reader(binding.request.fields_by_name[binding.body])

    def decode(self, path_values: Sequence[str], query: bytes, body: bytes) -> Message:
        """The request. Refusal with 400 and every violation when it is not exactly as the contract says."""
        violations: list[Violation] = []
        fields: Fields = dict(zip(self._parameters, path_values, strict=True))
        if query:
            fields |= _read_query(self._query, query, violations)
        if self._body:
            read = self._read_whole(body, violations)
            fields |= read if self._body == WHOLE_BODY else {self._body: read}
        if violations:
            raise invalid(violations)
        return self._class(**fields)

    def _read_whole(self, body: bytes, violations: list[Violation]) -> Any:
        if not body.strip(b" \t\r\n"):
            body = b"{}"
        try:
            body.decode()
        except UnicodeDecodeError:
            raise malformed("The body must be UTF-8") from None
        try:
            if self._body == WHOLE_BODY:
                return self._read_body(body, "", violations)
            return self._read_body(bytes(_any.decode(body)), self._body, violations)
        except msgspec.ValidationError:
            raise malformed("The body must be a JSON object") from None
        except msgspec.DecodeError as error:
            raise malformed("The body " + free_json.syntax_reason(error)) from None
        except RecursionError:
            raise malformed("The body is nested too deep") from None


def _read_query(plan: Mapping[str, tuple[scalars.Read, bool]], query: bytes, violations: list[Violation]) -> Fields:
    fields: Fields = {}
    for pair in query.split(b"&"):
        if len(violations) >= MAX_VIOLATIONS:
            break
        if not pair:
            continue
        raw_name, _, raw_value = pair.partition(b"=")
        name = _unquoted(raw_name).decode(errors="replace")
        if name not in plan:
            violations.append(Violation(name[:SHOWN_NAME], "is not a parameter of this path"))
            continue
        read, is_repeated = plan[name]
        try:
            value = read(_query_text(raw_value))
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


def _query_text(raw: bytes) -> bytes:
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


def _query_plan(descriptor: Descriptor, taken: Collection[str]) -> dict[str, tuple[scalars.Read, bool]]:
    return {
        field.name: (_query_reader(field), field.is_repeated) for field in descriptor.fields if field.name not in taken
    }


def _query_reader(field: FieldDescriptor) -> scalars.Read:
    read = scalars.query_reader(field)
    if field.message_type is None or field.message_type.full_name not in _TIME_READERS:
        return read

    # An unescaped + before the zone comes as a space.
    return lambda raw: read(raw.replace(b" ", b"+"))


def _message_reader(descriptor: Descriptor, taken: frozenset[str] = frozenset()) -> _Read:
    @cache
    def plan() -> dict[str, _Read]:
        # On first use, so that a message may hold its own type.
        return {field.name: _field_reader(field) for field in descriptor.fields if field.name not in taken}

    oneofs = {
        field.name: field.containing_oneof.name
        for field in descriptor.fields
        if field.containing_oneof is not None and len(field.containing_oneof.fields) > 1
    }

    def read(raw: bytes, path: str, violations: list[Violation]) -> Fields:
        prefix = path + "." if path else ""
        readers = plan()
        fields: Fields = {}
        for name, value in _object.decode(raw).items():
            if len(violations) >= MAX_VIOLATIONS:
                break
            reader = readers.get(name)
            if reader is None:
                violations.append(Violation(prefix + name[:SHOWN_NAME], "is not a field here"))
                continue
            text = bytes(value)
            if text != b"null":
                fields[name] = reader(text, prefix + name, violations)
        if oneofs:
            _check_oneofs(oneofs, fields, prefix, violations)
        return fields

    return read


def _check_oneofs(oneofs: Mapping[str, str], fields: Fields, prefix: str, violations: list[Violation]) -> None:
    first: dict[str, str] = {}
    for name in fields:
        oneof = oneofs.get(name)
        if oneof is None:
            continue
        if oneof in first:
            violations.append(Violation(prefix + name, f"cannot be given together with {first[oneof]}"))
        first.setdefault(oneof, name)


def _field_reader(field: FieldDescriptor) -> _Read:
    message = field.message_type
    most = field.GetOptions().Extensions[options_pb2.rules].max_items
    if message is not None and message.GetOptions().map_entry:
        return _map_reader(message, most)
    return _array_reader(_value_reader(field), most) if field.is_repeated else _value_reader(field)


def _value_reader(field: FieldDescriptor) -> _Read:
    if field.GetOptions().Extensions[options_pb2.free_json]:
        return _read_free_json
    message = field.message_type
    if message is not None and not message.full_name.startswith("google.protobuf."):
        return _nested_reader(message)
    read_scalar = scalars.json_reader(field)

    def read(raw: bytes, path: str, violations: list[Violation]) -> Any:
        try:
            return read_scalar(raw)
        except scalars.Bad as bad:
            violations.append(Violation(path, str(bad)))
            return None

    return read


def _read_free_json(raw: bytes, path: str, violations: list[Violation]) -> str:
    text = raw.decode()
    reason = free_json.check_well_formed(text)
    if reason is not None:
        violations.append(Violation(path, reason))
    return text


def _nested_reader(descriptor: Descriptor) -> _Read:
    make = message_class(descriptor)
    read_fields = _message_reader(descriptor)

    def read(raw: bytes, path: str, violations: list[Violation]) -> Message | None:
        if raw[:1] != b"{":
            violations.append(Violation(path, "must be an object"))
            return None
        before = len(violations)
        fields = read_fields(raw, path, violations)
        return make(**fields) if len(violations) == before else None

    return read


def _array_reader(read_one: _Read, most: int) -> _Read:
    def read(raw: bytes, path: str, violations: list[Violation]) -> list[Any]:
        if raw[:1] != b"[":
            violations.append(Violation(path, "must be an array"))
            return []
        values: list[Any] = []
        for place, each in enumerate(_at_most(most, _array.decode(raw), path, violations)):
            if len(violations) >= MAX_VIOLATIONS:
                break
            values.append(read_one(bytes(each), f"{path}[{place}]", violations))
        return values

    return read


def _map_reader(entry: Descriptor, most: int) -> _Read:
    if entry.fields_by_name["key"].type != FieldDescriptor.TYPE_STRING:
        raise TypeError(f"{entry.full_name}: only maps with text keys have a JSON form here")
    read_value = _value_reader(entry.fields_by_name["value"])

    def read(raw: bytes, path: str, violations: list[Violation]) -> dict[str, Any]:
        if raw[:1] != b"{":
            violations.append(Violation(path, "must be an object"))
            return {}
        values: dict[str, Any] = {}
        for key, value in _at_most(most, _object.decode(raw), path, violations).items():
            if len(violations) >= MAX_VIOLATIONS:
                break
            values[key] = read_value(bytes(value), f"{path}.{key[:SHOWN_NAME]}", violations)
        return values

    return read


def _at_most(most: int, items: _Items, path: str, violations: list[Violation]) -> _Items:
    """The items, none when they are too many. The server checks it as well: a body of nothing but small items would
    hold up the gateway for seconds before it got there.
    """
    if not most or len(items) <= most:
        return items
    violations.append(Violation(path, f"must have at most {most} items"))
    return type(items)()

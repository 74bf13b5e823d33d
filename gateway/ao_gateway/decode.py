"""Strict decoding: path, query, headers and JSON body to a request message, by a plan compiled once from descriptors.

Every value must have its exact JSON type, and every name must be known. All that is wrong is collected, so that a
client hears of it at once.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from typing import Any, Final, Literal, TypeVar

import msgspec
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from agent_orchestration import free_json
from agent_orchestration.v1 import options_pb2
from ao_gateway import query, scalars
from ao_gateway.bindings import WHOLE_BODY, Binding, header_fields, message_class
from ao_gateway.errors import MAX_VIOLATIONS, SHOWN_NAME, Headers, Violation, invalid, malformed
from ao_gateway.header_fields import HeaderReader

Fields = dict[str, Any]
_Items = TypeVar("_Items", list[msgspec.Raw], dict[str, msgspec.Raw])
# Given the text of one JSON value, its path and the list of violations, gives what protobuf takes; when it adds a
# violation the value is not used.
_Read = Callable[[bytes, str, list[Violation]], Any]

# Of words that are known only here, which no type checker can follow.
_literal: Final[Any] = Literal
_any: Final = msgspec.json.Decoder(msgspec.Raw)
_object: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_array: Final = msgspec.json.Decoder(list[msgspec.Raw])


class RequestDecoder:
    """Makes the requests of one route."""

    def __init__(self, binding: Binding) -> None:
        self._class = message_class(binding.request)
        self._parameters = binding.parameters
        self._body = binding.body
        in_headers = header_fields(binding.request)
        self._headers = HeaderReader(in_headers) if in_headers else None
        taken = set(binding.parameters)
        if binding.body == WHOLE_BODY:
            self._read_body = _message_reader(binding.request, frozenset(taken))
            self._query: query.Plan = {}
        else:
            self._query = query.plan(binding.request, taken | {binding.body} | in_headers.keys())
            if binding.body:
                self._read_body = _field_reader(binding.request.fields_by_name[binding.body])

    def decode(self, path_values: Sequence[str], query_string: bytes, headers: Headers, body: bytes) -> Message:
        """The request. Refusal with 400 and every violation when it is not exactly as the contract says."""
        violations: list[Violation] = []
        fields: Fields = dict(zip(self._parameters, path_values, strict=True))
        if query_string:
            fields |= query.read(self._query, query_string, violations)
        if self._body:
            read = self._read_whole(body, violations)
            fields |= read if self._body == WHOLE_BODY else {self._body: read}
        if self._headers is not None:
            self._headers.fill(fields, headers, violations)
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


def _message_reader(descriptor: Descriptor, taken: frozenset[str] = frozenset()) -> _Read:
    @cache
    def plan() -> dict[str, _Read]:
        # On first use, so that a message may hold its own type.
        return {field.name: _field_reader(field) for field in descriptor.fields if field.name not in taken}

    null_is_value = {field.name for field in descriptor.fields if field.GetOptions().Extensions[options_pb2.any_json]}
    oneofs = {
        field.name: field.containing_oneof.name
        for field in descriptor.fields
        if field.containing_oneof is not None and len(field.containing_oneof.fields) > 1
    }

    @cache
    def quick() -> _QuickReader:
        return _QuickReader(descriptor, plan(), null_is_value)

    def read_closely(raw: bytes, prefix: str, violations: list[Violation]) -> Fields:
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
            if text != b"null" or name in null_is_value:
                fields[name] = reader(text, prefix + name, violations)
        return fields

    def read(raw: bytes, path: str, violations: list[Violation]) -> Fields:
        prefix = path + "." if path else ""
        fields = quick().read(raw, prefix, violations)
        if fields is None:
            fields = read_closely(raw, prefix, violations)
        if oneofs:
            _check_oneofs(oneofs, fields, prefix, violations)
        return fields

    return read


class _QuickReader:
    """Reads an object that has no unknown names, and whose strings and words are such, in one go."""

    def __init__(self, descriptor: Descriptor, readers: Mapping[str, _Read], null_is_value: Collection[str]) -> None:
        self._null_is_value = null_is_value
        types: list[tuple[str, Any, None]] = []
        self._fields: list[tuple[str, Callable[[Any], Any] | None, _Read | None]] = []
        for name, reader in readers.items():
            field = descriptor.fields_by_name[name]
            is_free = field.GetOptions().Extensions[options_pb2.free_json]
            if field.type == field.TYPE_STRING and not field.is_repeated and not is_free:
                types.append((name, str | None, None))
                self._fields.append((name, None, None))
            elif field.enum_type is not None and not field.is_repeated:
                words = scalars.words_of(field.enum_type)
                types.append((name, _literal[(*words, None)], None))
                self._fields.append((name, words.__getitem__, None))
            else:
                types.append((name, msgspec.Raw, None))
                self._fields.append((name, None, reader))
        self._decode = msgspec.json.Decoder(
            msgspec.defstruct(descriptor.name, types, forbid_unknown_fields=True, gc=False)
        ).decode

    def read(self, raw: bytes, prefix: str, violations: list[Violation]) -> Fields | None:
        """The fields, None when something is wrong that takes a closer look."""
        try:
            given = self._decode(raw)
        except (msgspec.DecodeError, RecursionError):
            return None
        fields: Fields = {}
        for name, of_word, reader in self._fields:
            value = getattr(given, name)
            if value is None:
                continue
            if of_word is not None:
                value = of_word(value)
            elif reader is not None:
                text = bytes(value)
                is_absent = text == b"null" and name not in self._null_is_value
                if is_absent or len(violations) >= MAX_VIOLATIONS:
                    continue
                value = reader(text, prefix + name, violations)
            fields[name] = value
        return fields


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
    rules = field.GetOptions().Extensions[options_pb2.rules]
    if message is not None and message.GetOptions().map_entry:
        return _map_reader(message, rules.max_items)
    if field.is_repeated:
        return _array_reader(_value_reader(field), rules.max_items, is_empty_refused=rules.not_empty)
    return _value_reader(field)


def _value_reader(field: FieldDescriptor) -> _Read:
    options = field.GetOptions().Extensions
    if options[options_pb2.free_json]:
        return _free_json_reader(options[options_pb2.any_json])
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


def _free_json_reader(is_any: bool) -> _Read:
    def read(raw: bytes, path: str, violations: list[Violation]) -> str:
        text = raw.decode()
        reason = free_json.check_well_formed(text, is_any=is_any)
        if reason is not None:
            violations.append(Violation(path, reason))
        return text

    return read


def _nested_reader(descriptor: Descriptor) -> _Read:
    if descriptor.GetOptions().Extensions[options_pb2.as_list]:
        raise TypeError(f"{descriptor.full_name} is printed as a list, which is not read back")
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


def _array_reader(read_one: _Read, most: int, *, is_empty_refused: bool) -> _Read:
    def read(raw: bytes, path: str, violations: list[Violation]) -> list[Any]:
        if raw[:1] != b"[":
            violations.append(Violation(path, "must be an array"))
            return []
        values: list[Any] = []
        for place, each in enumerate(_at_most(most, _array.decode(raw), path, violations)):
            if len(violations) >= MAX_VIOLATIONS:
                break
            values.append(read_one(bytes(each), f"{path}[{place}]", violations))
        if is_empty_refused and not values:
            violations.append(Violation(path, "must have at least 1 items"))
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

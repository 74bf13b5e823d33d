"""Fast encoding: response message to JSON, by a plan compiled once from the descriptors.

What is printed follows from types and options alone: scalars always, unset messages and unset optional fields never,
repeated fields also when empty; enums as lower-case words, times as RFC 3339, durations as seconds, free JSON as the
text that it is; a message `as_list` as the list in it; a field with a `header` not in the body but there.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, Final

import msgspec
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message

from agent_orchestration.v1 import options_pb2
from ao_gateway import scalars
from ao_gateway.bindings import header_fields
from ao_gateway.errors import Headers

# Makes of a message, or of one value of a field, what the JSON encoder takes.
_View = Callable[[Any], Any]
# Adds one field of a message to the object that is printed.
_Add = Callable[[Any, dict[str, Any]], None]

_encoder: Final = msgspec.json.Encoder()
encode: Final[Callable[[Any], bytes]] = _encoder.encode


class ResponseEncoder:
    """Prints the responses of one message type."""

    def __init__(self, descriptor: Descriptor, success_status: int) -> None:
        self._view = message_view(descriptor, listed=False)
        self._success_status = success_status
        self._statuses = _http_statuses(descriptor)
        self._headers = [(name, header.lower().encode()) for name, header in header_fields(descriptor).items()]

    def encode(self, message: Message) -> bytes:
        """The message's JSON."""
        return _encoder.encode(self._view(message))

    def status(self, message: Message) -> int:
        """The HTTP status of the answer: that of a top-level enum value which has one, else the method's."""
        for name, statuses in self._statuses:
            status = statuses.get(getattr(message, name))
            if status is not None:
                return status
        return self._success_status

    def headers(self, message: Message) -> Headers:
        """The headers of the answer: those whose fields are true."""
        return [(header, b"true") for name, header in self._headers if getattr(message, name)]


@cache
def message_view(descriptor: Descriptor, listed: bool) -> _View:
    """The view of a message: a dict for the JSON encoder. `listed` leaves out the fields that are `detail_only`.

    TypeError for a message that holds a type without a JSON form.
    """
    adders: list[_Add] = []

    def view(message: Message) -> dict[str, Any]:
        printed: dict[str, Any] = {}
        for add in adders:
            add(message, printed)
        return printed

    if descriptor.full_name == scalars.TIMESTAMP:
        return scalars.print_timestamp
    if descriptor.full_name == scalars.DURATION:
        return scalars.print_duration
    if descriptor.full_name.startswith("google.protobuf."):
        raise TypeError(f"{descriptor.full_name} has no JSON form here")
    if descriptor.GetOptions().Extensions[options_pb2.as_list]:
        return _list_view(descriptor)
    for field in descriptor.fields:
        options = field.GetOptions()
        if options.Extensions[options_pb2.header] or (listed and options.Extensions[options_pb2.detail_only]):
            continue
        adders.append(_adder(field, listed))
    return view


def _list_view(descriptor: Descriptor) -> _View:
    if len(descriptor.fields) != 1 or not descriptor.fields[0].is_repeated:
        raise TypeError(f"{descriptor.full_name} is not just one list")
    name = descriptor.fields[0].name
    view = field_view(descriptor.fields[0], True)
    return lambda message: [view(each) for each in getattr(message, name)]


def field_view(field: FieldDescriptor, listed: bool) -> _View:
    """The view of one value of a field, of one item where it is repeated."""
    options = field.GetOptions()
    if options.Extensions[options_pb2.free_json]:
        return _free_json_view
    if field.enum_type is not None:
        return _enum_view(field.enum_type)
    if field.message_type is not None:
        within = listed or field.is_repeated or options.Extensions[options_pb2.as_listed]
        return _late(field.message_type, within)
    if field.type in (field.TYPE_DOUBLE, field.TYPE_FLOAT):
        return scalars.print_number
    if field.type == field.TYPE_BYTES:
        raise TypeError(f"{field.full_name}: bytes have no JSON form here")
    return _same


def _late(descriptor: Descriptor, listed: bool) -> _View:
    """The view of a message, also of one whose own view is still being made."""
    if descriptor.full_name.startswith("google.protobuf."):
        return message_view(descriptor, listed)
    return lambda message: message_view(descriptor, listed)(message)


def _adder(field: FieldDescriptor, listed: bool) -> _Add:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return _map_adder(field)
    view = field_view(field, listed)
    if field.is_repeated:
        return _repeated_adder(field.name, view)
    if field.has_presence:
        return _optional_adder(field.name, view)
    return _plain_adder(field.name, view)


def _plain_adder(name: str, view: _View) -> _Add:
    if view is _same:

        def add_same(message: Message, printed: dict[str, Any]) -> None:
            printed[name] = getattr(message, name)

        return add_same

    def add(message: Message, printed: dict[str, Any]) -> None:
        value = view(getattr(message, name))
        if value is not None:
            printed[name] = value

    return add


def _optional_adder(name: str, view: _View) -> _Add:
    def add(message: Message, printed: dict[str, Any]) -> None:
        if message.HasField(name):
            value = view(getattr(message, name))
            if value is not None:
                printed[name] = value

    return add


def _repeated_adder(name: str, view: _View) -> _Add:
    def add(message: Message, printed: dict[str, Any]) -> None:
        printed[name] = [view(each) for each in getattr(message, name)]

    return add


def _map_adder(field: FieldDescriptor) -> _Add:
    name = field.name
    assert field.message_type is not None
    if field.message_type.fields_by_name["key"].type != FieldDescriptor.TYPE_STRING:
        raise TypeError(f"{field.full_name}: only maps with text keys have a JSON form here")
    view = field_view(field.message_type.fields_by_name["value"], True)

    def add(message: Message, printed: dict[str, Any]) -> None:
        printed[name] = {key: view(value) for key, value in getattr(message, name).items()}

    return add


def _enum_view(enum: EnumDescriptor) -> _View:
    words = {number: word for word, number in scalars.words_of(enum).items()}
    # A newer server may know values that this gateway does not.
    return lambda number: words.get(number, "unspecified")


def _free_json_view(text: str) -> msgspec.Raw:
    # An empty text is the default of the field, never something that was sent.
    return msgspec.Raw(text or "{}")


def _same(value: Any) -> Any:
    return value


def _http_statuses(descriptor: Descriptor) -> list[tuple[str, dict[int, int]]]:
    found: list[tuple[str, dict[int, int]]] = []
    for field in descriptor.fields:
        if field.enum_type is None or field.is_repeated:
            continue
        options = {
            value.number: value.GetOptions().Extensions[options_pb2.http_status] for value in field.enum_type.values
        }
        statuses = {number: status for number, status in options.items() if status}
        if statuses:
            found.append((field.name, statuses))
    return found

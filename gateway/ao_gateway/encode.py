"""Fast encoding: response message to JSON, by a plan compiled once from the descriptors.

What is printed follows from types and options alone: scalars always, unset messages and unset optional fields never,
repeated fields also when empty, but for those with `omit_empty`; enums as lower-case words, times as RFC 3339,
durations as seconds, free JSON as the text that it is; a message `as_list` as the list in it; a field with a `header`
not in the body but there.
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
    if descriptor.full_name == scalars.TIMESTAMP:
        return scalars.print_timestamp
    if descriptor.full_name == scalars.DURATION:
        return scalars.print_duration
    if descriptor.full_name.startswith("google.protobuf."):
        raise TypeError(f"{descriptor.full_name} has no JSON form here")
    if descriptor.GetOptions().Extensions[options_pb2.as_list]:
        return _list_view(descriptor)
    plan = [
        (field, field.name, _field_view(field, listed), _printed_unset(field))
        for field in descriptor.fields
        if not field.GetOptions().Extensions[options_pb2.header]
        and not (listed and field.GetOptions().Extensions[options_pb2.detail_only])
    ]

    def view(message: Message) -> dict[str, Any]:
        printed: dict[str, Any] = {}
        given = dict(message.ListFields())
        for field, name, view_value, unset in plan:
            value = given.get(field)
            if value is not None:
                if view_value is not None:
                    value = view_value(value)
            else:
                value = unset
            if value is not None:
                printed[name] = value
        return printed

    return view


def _list_view(descriptor: Descriptor) -> _View:
    if len(descriptor.fields) != 1 or not descriptor.fields[0].is_repeated:
        raise TypeError(f"{descriptor.full_name} is not just one list")
    name = descriptor.fields[0].name
    view = _field_view(descriptor.fields[0], True)
    assert view is not None
    return lambda message: view(getattr(message, name))


def _item_view(field: FieldDescriptor, listed: bool) -> _View | None:
    """The view of one value of a field, of one item where it is repeated; None where the value is printed as it is."""
    options = field.GetOptions()
    if options.Extensions[options_pb2.free_json]:
        return _free_json_view
    if field.enum_type is not None:
        return _enum_view(field.enum_type)
    if field.message_type is not None:
        return _late(field.message_type, listed or field.is_repeated or options.Extensions[options_pb2.as_listed])
    if field.type in (field.TYPE_DOUBLE, field.TYPE_FLOAT):
        return scalars.print_number
    if field.type == field.TYPE_BYTES:
        raise TypeError(f"{field.full_name}: bytes have no JSON form here")
    return None


def _late(descriptor: Descriptor, listed: bool) -> _View:
    """The view of a message, also of one whose own view is still being made."""
    if descriptor.full_name.startswith("google.protobuf."):
        return message_view(descriptor, listed)
    return lambda message: message_view(descriptor, listed)(message)


def _field_view(field: FieldDescriptor, listed: bool) -> _View | None:
    """The view of all that a field holds."""
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return _map_view(field.message_type)
    view = _item_view(field, listed)
    if not field.is_repeated:
        return view
    return list if view is None else lambda values: [view(each) for each in values]


def _map_view(entry: Descriptor) -> _View:
    if entry.fields_by_name["key"].type != FieldDescriptor.TYPE_STRING:
        raise TypeError(f"{entry.full_name}: only maps with text keys have a JSON form here")
    view = _item_view(entry.fields_by_name["value"], True)
    return dict if view is None else lambda values: {key: view(value) for key, value in values.items()}


def _printed_unset(field: FieldDescriptor) -> Any:
    """What is printed of a field that is not there, None for nothing."""
    if field.is_repeated and field.GetOptions().Extensions[options_pb2.omit_empty]:
        return None
    if field.is_repeated:
        is_map = field.message_type is not None and field.message_type.GetOptions().map_entry
        return {} if is_map else []
    if field.has_presence:
        return None
    view = _item_view(field, listed=False)
    return field.default_value if view is None else view(field.default_value)


def _enum_view(enum: EnumDescriptor) -> _View:
    words = {number: word for word, number in scalars.words_of(enum).items()}
    # A newer server may know values that this gateway does not.
    return lambda number: words.get(number, "unspecified")


def _free_json_view(text: str) -> msgspec.Raw:
    # An empty text is the default of the field, never something that was sent.
    return msgspec.Raw(text or "{}")


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

"""JSON Schema of the contract's messages: as they are printed, and as they are taken.

The two differ. What is printed follows `encode`: some fields are always there, and lists leave some out. What is taken
follows `decode` and the `rules` of the fields: no other name, null as if absent, and limits.
"""

from collections.abc import Collection, Mapping
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from agent_orchestration.v1 import options_pb2
from ao_gateway import openapi_comments, scalars
from ao_gateway.bindings import header_fields

Schema = dict[str, Any]

_NO_NULL_CHARACTER: Final = r"^[^\u0000]*$"
_INT32: Final[Schema] = {"minimum": -(2**31), "maximum": 2**31 - 1}
_SCALARS: Final[Mapping[int, Schema]] = {
    FieldDescriptor.TYPE_STRING: {"type": "string"},
    FieldDescriptor.TYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.TYPE_DOUBLE: {"type": "number"},
    FieldDescriptor.TYPE_FLOAT: {"type": "number"},
    FieldDescriptor.TYPE_INT32: {"type": "integer", "format": "int32"},
    FieldDescriptor.TYPE_INT64: {"type": "integer", "format": "int64"},
    FieldDescriptor.TYPE_UINT32: {"type": "integer", "format": "int64"},
    FieldDescriptor.TYPE_UINT64: {"type": "integer"},
}
_WELL_KNOWN: Final[Mapping[str, Schema]] = {
    scalars.TIMESTAMP: {"type": "string", "format": "date-time"},
    scalars.DURATION: {"type": "number"},
}


class Schemas:
    """Makes the schemas, and collects in `components` those that have a name."""

    def __init__(self) -> None:
        self.components: dict[str, Schema] = {}

    def response(self, descriptor: Descriptor) -> Schema:
        """A whole answer as it is printed. Every message directly in it is there: it is what was asked for."""
        self.components[descriptor.name] = self._printed_object(descriptor, listed=False, is_answer=True)
        return _reference(descriptor.name)

    def printed(self, field: FieldDescriptor, listed: bool) -> Schema:
        """A field as it is printed; `listed` as for `encode.message_view`."""
        entry = _map_entry(field)
        if entry is not None:
            values = self._printed_value(entry.fields_by_name["value"], listed=True)
            return {"type": "object", "additionalProperties": values}
        if field.is_repeated:
            return {"type": "array", "items": self._printed_value(field, listed=True)}
        return self._printed_value(field, listed or field.GetOptions().Extensions[options_pb2.as_listed])

    def request(self, descriptor: Descriptor, name: str, without: Collection[str]) -> Schema | None:
        """A JSON body that fills a message but for the fields `without`, None when no field is left."""
        if all(field.name in without for field in descriptor.fields):
            return None
        return self._taken_message(descriptor, name, without)

    def taken(self, field: FieldDescriptor) -> Schema:
        """A field as it is taken, when it is there."""
        rules = _rules(field)
        entry = _map_entry(field)
        if entry is not None:
            names = _text_limits(rules, is_empty_refused=True)
            values = self._taken_value(entry.fields_by_name["value"], rules)
            limits = {"propertyNames": names, "additionalProperties": values}
            return {"type": "object", **limits, **_set_limits(rules, max_items="maxProperties")}
        if field.is_repeated:
            limits = _set_limits(rules, min_items="minItems", max_items="maxItems")
            if rules.not_empty:
                limits["minItems"] = 1
            return {"type": "array", "items": self._taken_value(field, rules), **limits}
        return self._taken_value(field, rules)

    def _printed_message(self, descriptor: Descriptor, listed: bool) -> Schema:
        name = descriptor.name + ("Listed" if listed and _has_detail(descriptor, set()) else "")
        if name not in self.components:
            # Before what it holds: a message may hold its own type.
            self.components[name] = {}
            if descriptor.GetOptions().Extensions[options_pb2.as_list]:
                schema = _described({"type": "array"}, openapi_comments.of(descriptor))
                schema["items"] = self._printed_value(descriptor.fields[0], listed=True)
            else:
                schema = self._printed_object(descriptor, listed)
            self.components[name] |= schema
        return _reference(name)

    def _printed_object(self, descriptor: Descriptor, listed: bool, is_answer: bool = False) -> Schema:
        properties: dict[str, Schema] = {}
        required: list[str] = []
        for field in descriptor.fields:
            options = field.GetOptions().Extensions
            if options[options_pb2.header] or (listed and options[options_pb2.detail_only]):
                continue
            properties[field.name] = _described(self.printed(field, listed), openapi_comments.of(field))
            is_printed = not field.has_presence and not options[options_pb2.omit_empty]
            if is_printed or (is_answer and field.message_type is not None):
                required.append(field.name)
        schema = _described({"type": "object"}, openapi_comments.of(descriptor))
        return schema | {"properties": properties} | ({"required": required} if required else {})

    def _printed_value(self, field: FieldDescriptor, listed: bool) -> Schema:
        simple = self._simple(field)
        if simple is not None:
            return simple
        assert field.message_type is not None
        return self._printed_message(field.message_type, listed)

    def _taken_message(self, descriptor: Descriptor, name: str, without: Collection[str]) -> Schema:
        if name not in self.components:
            self.components[name] = {}
            properties: dict[str, Schema] = {}
            required: list[str] = []
            either: list[Schema] = []
            for field in descriptor.fields:
                if field.name in without:
                    continue
                schema = self.taken(field)
                other = _set_rules(_rules(field)).get("required_unless")
                if other is not None:
                    either.append({"oneOf": [_present(field.name), _present(other)]})
                if is_required(field):
                    required.append(field.name)
                else:
                    schema = _or_null(schema)
                properties[field.name] = _described(schema, openapi_comments.of(field))
            schema = _described({"type": "object"}, openapi_comments.of(descriptor))
            schema |= {"properties": properties, "additionalProperties": False}
            schema |= {"required": required} if required else {}
            self.components[name] |= schema | ({"allOf": either} if either else {})
        return _reference(name)

    def _taken_value(self, field: FieldDescriptor, rules: options_pb2.Rules) -> Schema:
        message = field.message_type
        simple = self._simple(field)
        if simple is None:
            assert message is not None
            # A header fills fields of the request itself, never of a message in it.
            name = message.name.removesuffix("Request") + "Input"
            return self._taken_message(message, name, header_fields(message))
        if field.GetOptions().Extensions[options_pb2.free_json]:
            return simple | _set_limits(rules, max_length="x-max-bytes")
        if field.enum_type is not None:
            return simple
        if field.type == field.TYPE_STRING:
            return simple | _text_limits(rules, is_empty_refused=rules.required)
        return simple | _number_limits(field, rules)

    def _simple(self, field: FieldDescriptor) -> Schema | None:
        """The schema of a value that looks the same both ways, None for a message with fields."""
        options = field.GetOptions().Extensions
        if options[options_pb2.free_json]:
            return {} if options[options_pb2.any_json] else {"type": "object"}
        if field.enum_type is not None:
            return self._enum(field.enum_type)
        if field.message_type is None:
            return dict(_SCALARS[field.type])
        known = _WELL_KNOWN.get(field.message_type.full_name)
        return None if known is None else dict(known)

    def _enum(self, enum: EnumDescriptor) -> Schema:
        words = {"type": "string", "enum": list(scalars.words_of(enum))}
        self.components[enum.name] = _described(words, openapi_comments.of_enum(enum))
        return _reference(enum.name)


def is_required(field: FieldDescriptor) -> bool:
    """Whether a request without the field is refused."""
    rules = _rules(field)
    return rules.required or rules.min_items > 0


def in_text(schema: Schema) -> Schema:
    """The schema of a value that stands in a path or a query, where no text is empty or holds U+0000."""
    if schema.get("type") == "array":
        return schema | {"items": in_text(schema["items"])}
    if schema.get("type") == "string" and "format" not in schema:
        return schema | {"minLength": schema.get("minLength", 1), "pattern": _NO_NULL_CHARACTER}
    return schema


def _text_limits(rules: options_pb2.Rules, is_empty_refused: bool) -> Schema:
    limits: Schema = {"minLength": 1} if is_empty_refused else {}
    limits |= _set_limits(rules, min_length="minLength", max_length="maxLength")
    return limits | ({"pattern": _NO_NULL_CHARACTER} if rules.identifier else {})


def _number_limits(field: FieldDescriptor, rules: options_pb2.Rules) -> Schema:
    limits = _INT32 if field.type == field.TYPE_INT32 else {}
    return limits | _set_limits(rules, minimum="minimum", above="exclusiveMinimum", maximum="maximum")


def _set_limits(rules: options_pb2.Rules, **keywords: str) -> Schema:
    """The rules that are set, by the keywords that stand for them."""
    limits = _set_rules(rules)
    return {keyword: scalars.print_number(float(limits[name])) for name, keyword in keywords.items() if name in limits}


def _set_rules(rules: options_pb2.Rules) -> dict[str, Any]:
    return {field.name: value for field, value in rules.ListFields()}


def _present(name: str) -> Schema:
    return {"required": [name], "properties": {name: {"not": {"type": "null"}}}}


def _has_detail(descriptor: Descriptor, seen: set[str]) -> bool:
    """Whether lists leave out something of the message, or of a message in it."""
    if descriptor.full_name in seen:
        return False
    seen.add(descriptor.full_name)
    for field in descriptor.fields:
        options = field.GetOptions().Extensions
        if options[options_pb2.detail_only]:
            return True
        is_listed_anyway = field.is_repeated or options[options_pb2.as_listed]
        if field.message_type is not None and not is_listed_anyway and _has_detail(field.message_type, seen):
            return True
    return False


def _or_null(schema: Schema) -> Schema:
    if "type" in schema:
        return schema | {"type": [schema["type"], "null"]}
    # Without a type or a name it takes any value, null too.
    return {"anyOf": [schema, {"type": "null"}]} if "$ref" in schema else schema


def _described(schema: Schema, text: str) -> Schema:
    return schema | ({"description": text} if text else {})


def _reference(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _rules(field: FieldDescriptor) -> options_pb2.Rules:
    return field.GetOptions().Extensions[options_pb2.rules]


def _map_entry(field: FieldDescriptor) -> Descriptor | None:
    message = field.message_type
    return message if message is not None and message.GetOptions().map_entry else None

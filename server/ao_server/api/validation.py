"""Field limits: the `rules` options of the protos, compiled once per message type, checked before a method runs."""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from agent_orchestration import free_json
from agent_orchestration.v1 import options_pb2
from ao_server.errors import FieldProblem, Invalid

# Given a message and the path in front of its fields, yields what is wrong.
_Check = Callable[[Message, str], Iterator[FieldProblem]]
# Given a field's value, says what is wrong with it.
_Rule = Callable[[Any], str | None]


def validate(message: Message) -> None:
    """Invalid, with every field of the message that breaks a rule."""
    problems = [problem for check in _checks(message.DESCRIPTOR) for problem in check(message, "")]
    if problems:
        raise Invalid("; ".join(f"{each.field}: {each.message}" for each in problems[:3]), details=problems)


@cache
def _checks(descriptor: Descriptor) -> list[_Check]:
    found = [_field_check(field) for field in descriptor.fields]
    return [check for check in found if check is not None]


def _field_check(field: FieldDescriptor) -> _Check | None:
    options = field.GetOptions()
    rules = options.Extensions[options_pb2.rules]
    is_json = options.Extensions[options_pb2.free_json]
    if field.message_type is not None and not field.message_type.full_name.startswith("google."):
        return _message_check(field, rules)
    value_rules = list(_value_rules(field, rules, is_json))
    if not value_rules and not rules.required and not rules.max_items:
        return None
    return _scalar_check(field, rules, value_rules)


def _message_check(field: FieldDescriptor, rules: options_pb2.Rules) -> _Check:
    name = field.name
    nested = field.message_type
    assert nested is not None

    def check_one(message: Message, path: str) -> Iterator[FieldProblem]:
        if message.HasField(name):
            value = getattr(message, name)
            for check in _checks(nested):
                yield from check(value, f"{path}{name}.")
        elif rules.required:
            yield FieldProblem(path + name, "is required")

    def check_all(message: Message, path: str) -> Iterator[FieldProblem]:
        values = getattr(message, name)
        if rules.HasField("max_items") and len(values) > rules.max_items:
            yield FieldProblem(path + name, f"must have at most {rules.max_items} items")
            return
        for place, value in enumerate(values):
            for check in _checks(nested):
                yield from check(value, f"{path}{name}[{place}].")

    return check_all if field.is_repeated else check_one


def _scalar_check(field: FieldDescriptor, rules: options_pb2.Rules, value_rules: list[_Rule]) -> _Check:
    name = field.name
    has_presence = field.has_presence

    def check(message: Message, path: str) -> Iterator[FieldProblem]:
        value = getattr(message, name)
        absent = not message.HasField(name) if has_presence else not value
        if absent:
            if rules.required:
                yield FieldProblem(path + name, "is required")
            if has_presence or rules.required:
                return
        for rule in value_rules:
            wrong = rule(value)
            if wrong is not None:
                yield FieldProblem(path + name, wrong)
                return

    return check


def _value_rules(field: FieldDescriptor, rules: options_pb2.Rules, is_json: bool) -> Iterator[_Rule]:
    if rules.HasField("min_length"):
        least = rules.min_length
        yield lambda text: f"must have at least {least} characters" if len(text) < least else None
    if rules.HasField("max_length"):
        most = rules.max_length
        if is_json:
            yield lambda text: f"must be at most {most} bytes of JSON" if len(text.encode()) > most else None
        else:
            yield lambda text: f"must have at most {most} characters" if len(text) > most else None
    if rules.identifier:
        yield lambda text: "must not contain U+0000" if "\0" in text else None
    if rules.HasField("minimum"):
        minimum = rules.minimum
        # Written so that NaN fails too.
        yield lambda number: None if number >= minimum else f"must be at least {minimum:g}"
    if rules.HasField("maximum"):
        maximum = rules.maximum
        yield lambda number: None if number <= maximum else f"must be at most {maximum:g}"
    if field.enum_type is not None:
        known = field.enum_type.values_by_number
        yield lambda number: f"{number} is not a known value" if number not in known else None
    if is_json:
        yield free_json.check

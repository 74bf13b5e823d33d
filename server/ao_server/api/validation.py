"""Field limits: the `rules` options of the protos, compiled once per message type, checked before a method runs."""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from agent_orchestration import free_json
from agent_orchestration.v1 import options_pb2
from ao_server.errors import FieldProblem, Invalid

SHOWN_KEY = 50

# Given a message, the path in front of its fields and the problems so far, adds what is wrong.
_Check = Callable[[Message, str, list[FieldProblem]], None]
# Given a field's value, says what is wrong with it.
_Rule = Callable[[Any], str | None]


def validate(message: Message) -> None:
    """Invalid, with every field of the message that breaks a rule."""
    problems: list[FieldProblem] = []
    _add_problems(message, "", problems)
    if problems:
        raise Invalid("; ".join(f"{each.field}: {each.message}" for each in problems[:3]), details=problems)


def _add_problems(message: Message, path: str, problems: list[FieldProblem]) -> None:
    given = {field for field, _ in message.ListFields()}
    for field, check, is_for_absent in _checks(message.DESCRIPTOR):
        if is_for_absent or field in given:
            check(message, path, problems)


@cache
def _checks(descriptor: Descriptor) -> list[tuple[FieldDescriptor, _Check, bool]]:
    """For each field that has rules its check, and whether an absent or empty field can break them."""
    found = [(field, _field_check(field), _is_for_absent(field)) for field in descriptor.fields]
    return [(field, check, is_for_absent) for field, check, is_for_absent in found if check is not None]


def _is_for_absent(field: FieldDescriptor) -> bool:
    rules = field.GetOptions().Extensions[options_pb2.rules]
    if rules.required or rules.required_unless:
        return True
    return bool(rules.min_items) if field.is_repeated else not field.has_presence


def _field_check(field: FieldDescriptor) -> _Check | None:
    options = field.GetOptions()
    rules = options.Extensions[options_pb2.rules]
    is_json = options.Extensions[options_pb2.free_json]
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return _map_check(field, rules)
    if field.message_type is not None and not field.message_type.full_name.startswith("google."):
        return _message_check(field, rules)
    value_rules = list(_value_rules(field, rules, is_json))
    if not value_rules and not rules.required and not rules.max_items and not rules.required_unless:
        return None
    if field.is_repeated:
        return _list_check(field, rules, value_rules)
    return _scalar_check(field, rules, value_rules)


def _message_check(field: FieldDescriptor, rules: options_pb2.Rules) -> _Check:
    name = field.name

    def check_one(message: Message, path: str, problems: list[FieldProblem]) -> None:
        if message.HasField(name):
            value = getattr(message, name)
            _add_problems(value, f"{path}{name}.", problems)
        elif rules.required:
            problems.append(FieldProblem(path + name, "is required"))

    def check_all(message: Message, path: str, problems: list[FieldProblem]) -> None:
        values = getattr(message, name)
        wrong = _count_problem(rules, len(values))
        if wrong is not None:
            problems.append(FieldProblem(path + name, wrong))
            return
        for place, value in enumerate(values):
            _add_problems(value, f"{path}{name}[{place}].", problems)

    return check_all if field.is_repeated else check_one


def _count_problem(rules: options_pb2.Rules, count: int) -> str | None:
    if rules.HasField("min_items") and count < rules.min_items:
        return f"must have at least {rules.min_items} items"
    if rules.HasField("max_items") and count > rules.max_items:
        return f"must have at most {rules.max_items} items"
    return None


def _list_check(field: FieldDescriptor, rules: options_pb2.Rules, value_rules: list[_Rule]) -> _Check:
    name = field.name

    def check(message: Message, path: str, problems: list[FieldProblem]) -> None:
        values = getattr(message, name)
        wrong = _count_problem(rules, len(values))
        if wrong is not None:
            problems.append(FieldProblem(path + name, wrong))
            return
        for place, value in enumerate(values):
            for rule in value_rules:
                wrong = rule(value)
                if wrong is not None:
                    problems.append(FieldProblem(f"{path}{name}[{place}]", wrong))
                    break

    return check


def _map_check(field: FieldDescriptor, rules: options_pb2.Rules) -> _Check | None:
    """A map of text: one set of limits for keys and values, but that a key is never empty."""
    assert field.message_type is not None
    name = field.name
    value_rules = list(_value_rules(field.message_type.fields_by_name["value"], rules, is_json=False))

    def check(message: Message, path: str, problems: list[FieldProblem]) -> None:
        values = getattr(message, name)
        wrong = _count_problem(rules, len(values))
        if wrong is not None:
            problems.append(FieldProblem(path + name, wrong))
            return
        for key, value in values.items():
            if not key:
                problems.append(FieldProblem(path + name, "must not have an empty key"))
            for text in (key, value):
                wrong = next((found for rule in value_rules if (found := rule(text)) is not None), None)
                if wrong is not None:
                    problems.append(FieldProblem(f"{path}{name}.{key[:SHOWN_KEY]}", wrong))
                    break

    return check


def _scalar_check(field: FieldDescriptor, rules: options_pb2.Rules, value_rules: list[_Rule]) -> _Check:
    name = field.name
    has_presence = field.has_presence
    other = rules.required_unless

    def check(message: Message, path: str, problems: list[FieldProblem]) -> None:
        value = getattr(message, name)
        absent = not message.HasField(name) if has_presence else not value
        if other and absent != message.HasField(other):
            wrong = f"is required where {other} is not given" if absent else f"cannot be given together with {other}"
            problems.append(FieldProblem(path + name, wrong))
            return
        if absent:
            if rules.required:
                problems.append(FieldProblem(path + name, "is required"))
            if has_presence or rules.required:
                return
        for rule in value_rules:
            wrong = rule(value)
            if wrong is not None:
                problems.append(FieldProblem(path + name, wrong))
                return

    return check


def _value_rules(field: FieldDescriptor, rules: options_pb2.Rules, is_json: bool) -> Iterator[_Rule]:
    if rules.HasField("min_length"):
        least = rules.min_length
        few = "must not be empty" if least == 1 else f"must have at least {least} characters"
        yield lambda text: few if len(text) < least else None
    if rules.HasField("max_length"):
        most = rules.max_length
        if is_json:
            yield lambda text: f"must be at most {most} bytes of JSON" if len(text.encode()) > most else None
        else:
            yield lambda text: f"must have at most {most} characters" if len(text) > most else None
    if rules.identifier:
        yield lambda text: "must not contain U+0000" if "\0" in text else None
    measure = _seconds if field.message_type is not None else _itself
    # Written so that NaN fails too.
    if rules.HasField("minimum"):
        minimum = rules.minimum
        yield lambda number: None if measure(number) >= minimum else f"must be at least {minimum:.15g}"
    if rules.HasField("above"):
        above = rules.above
        yield lambda number: None if measure(number) > above else f"must be above {above:.15g}"
    if rules.HasField("maximum"):
        maximum = rules.maximum
        yield lambda number: None if measure(number) <= maximum else f"must be at most {maximum:.15g}"
    if field.enum_type is not None:
        known = field.enum_type.values_by_number
        yield lambda number: f"{number} is not a known value" if number not in known else None
    if is_json:
        yield free_json.check


def _itself(number: float) -> float:
    return number


def _seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos / 1e9

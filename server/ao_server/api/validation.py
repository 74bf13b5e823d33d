"""Field limits: the `rules` options of the protos, compiled once per message type, checked before a method runs.

Nearly every message is good, and a bulk create has thousands of fields: only those that are set are looked at, and
where something stands is put into words only once it is wrong.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from agent_orchestration import free_json
from agent_orchestration.v1 import options_pb2
from ao_server.errors import FieldProblem, Invalid

SHOWN_KEY: Final = 50

# What is wrong with a value: None for nothing, a text for the value itself, else what is wrong inside of it, each with
# a place that begins with its separator, as in `.tasks[3].type`.
_Wrong = str | list[FieldProblem] | None
_Check = Callable[[Any], _Wrong]


def validate(message: Message) -> None:
    """Invalid, with every field of the message that breaks a rule."""
    wrong = _message_check(message.DESCRIPTOR)(message)
    if wrong is not None:
        problems = [FieldProblem(each.field.removeprefix("."), each.message) for each in _inside("", wrong)]
        raise Invalid.fields(problems)


@cache
def _message_check(descriptor: Descriptor) -> _Check:
    needed = [field for field in descriptor.fields if _is_needed(field)]
    checks = {field: (1 << needed.index(field) if field in needed else 0, _check(field)) for field in descriptor.fields}

    @cache
    def missing(given: int) -> Sequence[FieldProblem]:
        """What is wrong about which of the needed fields are given, a bit for each."""
        names = {field.name for place, field in enumerate(needed) if given >> place & 1}
        return list(_missing(needed, names))

    def check(message: Message) -> _Wrong:
        given = 0
        problems: list[FieldProblem] = []
        for field, value in message.ListFields():
            bit, check_value = checks[field]
            given |= bit
            if check_value is not None:
                wrong = check_value(value)
                if wrong is not None:
                    problems += _inside(f".{field.name}", wrong)
        problems += missing(given)
        return problems or None

    return check


def _inside(place: str, wrong: str | Iterable[FieldProblem]) -> list[FieldProblem]:
    """What is wrong in a value, as seen from what holds the value in this place."""
    if isinstance(wrong, str):
        return [FieldProblem(place, wrong)]
    return [FieldProblem(place + each.field, each.message) for each in wrong]


def _rules(field: FieldDescriptor) -> options_pb2.Rules:
    return field.GetOptions().Extensions[options_pb2.rules]


def _is_needed(field: FieldDescriptor) -> bool:
    """Whether it matters that the field is absent or, without presence, empty."""
    assert field.containing_type is not None
    others = [_rules(other).required_unless for other in field.containing_type.fields]
    return bool(_rules(field).required_unless) or field.name in others or _absence(field) is not None


def _missing(needed: Iterable[FieldDescriptor], given: set[str]) -> Iterable[FieldProblem]:
    for field in needed:
        other = _rules(field).required_unless
        is_given = field.name in given
        if other and is_given == (other in given):
            wrong = f"cannot be given together with {other}" if is_given else f"is required where {other} is not given"
            yield FieldProblem(f".{field.name}", wrong)
        elif not is_given and (absence := _absence(field)) is not None:
            yield FieldProblem(f".{field.name}", absence)


def _absence(field: FieldDescriptor) -> str | None:
    """What is wrong when the field is absent."""
    rules = _rules(field)
    if field.is_repeated:
        return _count_problem(rules, 0)
    if rules.required:
        return "is required"
    if field.has_presence:
        return None
    check = _value_check(field, rules)
    wrong = None if check is None else check(field.default_value)
    assert not isinstance(wrong, list)
    return wrong


def _check(field: FieldDescriptor) -> _Check | None:
    """Checks the value of a field that is given; None when every value is good."""
    rules = _rules(field)
    message_type = field.message_type
    if message_type is not None and message_type.GetOptions().map_entry:
        return _map_check(rules, _value_check(message_type.fields_by_name["value"], rules))
    if message_type is not None and not message_type.full_name.startswith("google."):
        check = _message_check(message_type)
    else:
        check = _value_check(field, rules)
    return _list_check(rules, check) if field.is_repeated else check


def _count_problem(rules: options_pb2.Rules, count: int) -> str | None:
    if rules.HasField("min_items") and count < rules.min_items:
        return f"must have at least {rules.min_items} items"
    if rules.HasField("max_items") and count > rules.max_items:
        return f"must have at most {rules.max_items} items"
    return None


def _list_check(rules: options_pb2.Rules, check_one: _Check | None) -> _Check:
    def check(values: Sequence[Any]) -> _Wrong:
        problem = _count_problem(rules, len(values))
        if problem is not None or check_one is None:
            return problem
        problems: list[FieldProblem] = []
        for place, wrong in enumerate(map(check_one, values)):
            if wrong is not None:
                problems += _inside(f"[{place}]", wrong)
        return problems or None

    return check


def _map_check(rules: options_pb2.Rules, check_text: _Check | None) -> _Check:
    """A map of text: one set of limits for keys and values, but that a key is never empty."""

    def check(values: Any) -> _Wrong:
        problem = _count_problem(rules, len(values))
        if problem is not None:
            return problem
        problems: list[FieldProblem] = []
        for key, value in values.items():
            if not key:
                problems.append(FieldProblem("", "must not have an empty key"))
            wrong = None if check_text is None else check_text(key) or check_text(value)
            if wrong is not None:
                problems += _inside(f".{key[:SHOWN_KEY]}", wrong)
        return problems or None

    return check


def _value_check(field: FieldDescriptor, rules: options_pb2.Rules) -> _Check | None:
    if field.enum_type is not None:
        known = field.enum_type.values_by_number
        return lambda number: f"{number} is not a known value" if number not in known else None
    options = field.GetOptions().Extensions
    if options[options_pb2.free_json]:
        return _json_check(rules, options[options_pb2.any_json])
    if field.type == FieldDescriptor.TYPE_STRING:
        return _text_check(rules)
    if any(map(rules.HasField, ("minimum", "above", "maximum"))):
        return _number_check(rules, _itself if field.message_type is None else _seconds)
    return None


def _json_check(rules: options_pb2.Rules, is_any: bool) -> _Check:
    most = rules.max_length if rules.HasField("max_length") else None

    def check(text: str) -> str | None:
        if most is not None and len(text.encode()) > most:
            return f"must be at most {most} bytes of JSON"
        return free_json.check(text, is_any=is_any)

    return check


def _text_check(rules: options_pb2.Rules) -> _Check | None:
    least = rules.min_length
    most = rules.max_length if rules.HasField("max_length") else None
    is_identifier = rules.identifier
    if not least and most is None and not is_identifier:
        return None

    def check(text: str) -> str | None:
        length = len(text)
        if length < least:
            return "must not be empty" if least == 1 else f"must have at least {least} characters"
        if most is not None and length > most:
            return f"must have at most {most} characters"
        if is_identifier and "\0" in text:
            return "must not contain U+0000"
        return None

    return check


def _number_check(rules: options_pb2.Rules, measure: Callable[[Any], float]) -> _Check:
    minimum = rules.minimum if rules.HasField("minimum") else None
    above = rules.above if rules.HasField("above") else None
    maximum = rules.maximum if rules.HasField("maximum") else None

    def check(value: Any) -> str | None:
        number = measure(value)
        # Written so that NaN fails too.
        if minimum is not None and not number >= minimum:
            return f"must be at least {minimum:.15g}"
        if above is not None and not number > above:
            return f"must be above {above:.15g}"
        if maximum is not None and not number <= maximum:
            return f"must be at most {maximum:.15g}"
        return None

    return check


def _itself(number: float) -> float:
    return number


def _seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos / 1e9

"""Texts that are JSON, nearly JSON and not JSON at all: bodies of the contract's messages, bent here and there."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from hypothesis import strategies as st

from agent_orchestration.v1 import options_pb2
from ao_gateway import scalars

MAX_NESTING: Final = 3

# What a careless or hostile client writes where a value belongs, whatever its type.
ODD_VALUES: Final = [
    *("null", "true", "false", "True", "nil", "undefined", "NaN", "-NaN", "Infinity", "-Infinity", "", ",", ":"),
    *("}", "]", "0", "-0", "-0.0", "00", "01", "+1", ".5", "1.", "1.0", "1E5", "1e5", "5e-324", "1e-400", "1e308"),
    *("1e309", "-1e400", "0x1", "1_000", "1e", "1e+", "--1", "2147483647", "2147483648", "-2147483649"),
    *("9007199254740993", "9223372036854775808", "18446744073709551616", "-1180591620717411303424", "0.1"),
    *("100.00000000000000000001", "1" * 299, "1" * 300, "1" * 4300, "1" * 4301, "-" + "9" * 4300, "9" * 310 + ".0"),
    *("0." + "3" * 400, "1" * 5000 + "e-1", '""', '" "', '"x"', '"1"', '"null"', '"é"', '"\U0001f600"'),
    *('"\\ud83d\\ude00"', '"\\u0000"', '"\\\\u0000"', '"\0"', '"\\ud800"', '"\\udc00"', '"\\ud800\\u0041"'),
    *('"\\ude00\\ud83d"', '"\\ud83d', '"\\x41"', '"\\u12"', '"\\', '"', "'x'", '"\t"', '"\x7f"', '"\u2028"'),
    *('"\ufeff"', '"\ufffe"', '"' + "a" * 300 + '"', '"' + "é" * 201 + '"', '"\x1f"', "[]", "{}", "[[]]", "[{}]"),
    *("{", "[", '{"a"', '{"a":', '{"a":1,}', "[1,]", "[,1]", '{"a" 1}', "{1:2}", '{"a":1 "b":2}', '{"a":1,"a":2}'),
    *('{"":0}', '{"\\u0000":1}', '{"\\ud800":1}', '{"__proto__":{}}', "/*x*/1", "1//x", "[1]//", "{}{}", "1 2"),
    *("[" * 99 + "]" * 99, "[" * 100 + "]" * 100, "[" * 101 + "]" * 101, "[" * 2000),
    *('{"a":' * 120 + "1" + "}" * 120, '{"a":' + "[" * 98 + "]" * 98 + "}", '{"a":' + "[" * 99 + "]" * 99 + "}"),
    *('{"a":' + "[" * 100 + "]" * 100 + "}", '{"a":1e400}', '{"a":' + "7" * 4301 + "}", '{"a":NaN}'),
    *('{"a":[-Infinity]}', '{"a":"\\ud800"}', '{"a":"\x00"}', '"2024-01-01"', '"2024-01-01T00:00:00"'),
    *('"2024-02-30T00:00:00Z"', '"0000-01-01T00:00:00Z"', '"9999-12-31T23:59:60Z"', '"0001-01-01T00:00:00+23:59"'),
    *('"2024-01-01T00:00:00+24:00"', '"2024-01-01T00:00:00.1234567890Z"', "315576000000", "315576000001", "-1"),
    *("1e-9", "1e-10", "0.9999999999", "3153600000.5"),
]
GOOD_OBJECTS: Final = [
    *("{}", ' {\n"z" : 1.0 ,\t"a":-0.0}', '{"z":1,"y":2,"a":3,"a":4}'),
    '{"n":[9007199254740993,18446744073709551616,1E5,0.1]}',
    *('{"s":"\\u0000 \\\\u0000 \\ud83d\\ude00 \U0001f600"}', '{"n":' + "1" * 4300 + "}"),
    *('{"n":5e-324,"m":1.7976931348623157e308}', '{"a":' + "[" * 99 + "]" * 99 + "}"),
    '{"max_concurrent_tasks":1,"timeout":300,"retry_attempts":3}',
]
SPACES: Final = st.sampled_from(["", "", "", " ", "\n", "\t ", "\r\n"])
ODD_BYTES: Final = st.sampled_from(
    [
        *(b"", b"\0", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xef\xbb\xbf", b'"', b"\\", b"{", b"}"),
        *(
            b"[",
            b"]",
            b",",
            b":",
            b"1",
            b"e",
            b"-",
            b".",
            b" ",
            b"\x0b",
            b"\x0c",
            b"\x1f",
            b"\xc2\xa0",
            b"\xe2\x80\xa8",
        ),
    ]
)
_TIMES: Final = ['"2024-01-01T00:00:00Z"', '"1969-12-31T23:59:59.999999999+05:30"', '"9999-12-31T23:59:59Z"']
_TEXTS: Final = ['"x"', '"agent_1"', '"a é \\u00e9 \U0001f600"', '"tasks.run"']


def _object(members: Sequence[tuple[str, str]]) -> str:
    return "{" + ",".join(f"{json.dumps(name)}:{value}" for name, value in members) + "}"


odd_values: Final = st.sampled_from(ODD_VALUES)
_json: Final = st.recursive(
    st.sampled_from(["1", "-0.0", "1E5", '"\\u0000"', "null"]) | st.integers().map(str) | st.text().map(json.dumps),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: "[" + ",".join(items) + "]")
        | st.lists(st.tuples(st.text(max_size=3), inner), max_size=3).map(_object)
    ),
    max_leaves=5,
)
_members: Final = st.lists(st.tuples(st.text(max_size=3), _json), max_size=3)
_objects: Final = st.sampled_from(GOOD_OBJECTS) | _members.map(_object)


def bodies(descriptor: Descriptor) -> st.SearchStrategy[bytes]:
    """Bodies for a message: good ones, such with odd members, such with odd bytes, and raw bytes."""
    document = _message(descriptor, 0)
    return st.one_of(
        document.map(str.encode),
        document.map(str.encode),
        bent(document),
        odd_values.map(str.encode),
        st.binary(max_size=60),
    )


@st.composite
def bent(draw: Callable[[Any], Any], whole: st.SearchStrategy[str]) -> bytes:
    """A document with bytes cut out, put in or put twice."""
    text: bytes = draw(whole).encode()
    for _ in range(draw(st.integers(1, 3))):
        begin = draw(st.integers(0, len(text)))
        end = min(len(text), begin + draw(st.integers(0, 4)))
        text = text[:begin] + draw(ODD_BYTES) + text[draw(st.sampled_from([begin, end, len(text)])) :]
    return text


def query_values(field: FieldDescriptor) -> st.SearchStrategy[str]:
    """Texts for a parameter, not escaped."""
    good = _scalar(field)
    return good.map(lambda text: text.strip('"')) | odd_values.map(lambda text: text[:50]) | st.text(max_size=5)


@st.composite
def documents(draw: Callable[[Any], Any], members: Mapping[str, st.SearchStrategy[str]]) -> str:
    """Objects with some of the members, and now and then one that does not belong there."""
    chosen = [(json.dumps(name), draw(value)) for name, value in members.items() if draw(st.integers(0, 2))]
    for _ in range(draw(st.sampled_from([0, 0, 1, 1, 2]))):
        odd_names = ['"agentId"', '"unknown"', '""', '"\\u0000"', '"\\u0061gent_id"', "name", "1"]
        names = [*map(json.dumps, members), *odd_names]
        chosen.insert(draw(st.integers(0, len(chosen))), (draw(st.sampled_from(names)), draw(odd_values)))
    space = draw(SPACES)
    return space + "{" + ("," + space).join(f"{name}{space}:{value}{space}" for name, value in chosen) + "}"


def _message(descriptor: Descriptor, depth: int) -> st.SearchStrategy[str]:
    return documents({field.name: _value(field, depth) for field in descriptor.fields})


def _value(field: FieldDescriptor, depth: int) -> st.SearchStrategy[str]:
    message = field.message_type
    if message is not None and message.GetOptions().map_entry:
        keys = st.text(max_size=5)
        return st.lists(st.tuples(keys, st.sampled_from(_TEXTS) | odd_values), max_size=3).map(_object)
    one = _scalar(field)
    if message is not None and not message.full_name.startswith("google.protobuf."):
        one = _message(message, depth + 1) if depth < MAX_NESTING else st.just("{}")
    if field.is_repeated:
        return st.lists(one, max_size=3).map(lambda items: "[" + ",".join(items) + "]")
    return one


def _scalar(field: FieldDescriptor) -> st.SearchStrategy[str]:
    if field.GetOptions().Extensions[options_pb2.free_json]:
        return _objects
    if field.enum_type is not None:
        return st.sampled_from([json.dumps(word) for word in scalars.words_of(field.enum_type)] or ['"x"'])
    if field.type == field.TYPE_STRING:
        return st.sampled_from(_TEXTS) | st.text(max_size=8).map(json.dumps)
    if field.type == field.TYPE_BOOL:
        return st.sampled_from(["true", "false"])
    if field.message_type is not None and field.message_type.full_name == scalars.TIMESTAMP:
        return st.sampled_from(_TIMES)
    return st.integers(0, 100).map(str) | st.sampled_from(["0.5", "1", "60", "1e1"])

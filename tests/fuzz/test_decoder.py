"""The gateway's request decoder, given anything: a message, or a refusal that can be printed."""

import gc
import json
import time
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, Final
from urllib.parse import quote_plus

import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from agent_orchestration import free_json
from agent_orchestration.v1 import options_pb2
from ao_gateway import bindings, errors
from ao_gateway.app import FILES
from ao_gateway.bindings import Binding
from ao_gateway.body import MAX_BYTES
from ao_gateway.decode import RequestDecoder
from ao_gateway.errors import MAX_VIOLATIONS, Headers, Refusal
from tests.fuzz.effort import fuzzed
from tests.fuzz.json_texts import bodies, query_values

BINDINGS: Final = bindings.read(FILES)
WITH_BODY: Final = [binding for binding in BINDINGS if binding.body]
WITH_QUERY: Final = [binding for binding in BINDINGS if not binding.body]
# Time of the processor for one small input, and for the largest body; many times what is needed.
SMALL_SECONDS: Final = 0.5
LARGE_SECONDS: Final = 1.0
HEADERS: Final = st.just([]) | st.lists(
    st.tuples(
        st.sampled_from([b"idempotency-key", b"idempotency-key", b"last-event-id", b"x"]),
        st.sampled_from([b"key_1", b"x", b"", b" ", b"a b", b"\xc3\xa9", b"\0", b"k" * 300]) | st.binary(max_size=5),
    ),
    max_size=2,
)
# One more may be found at each level on the way out.
MAX_SHOWN: Final = MAX_VIOLATIONS + 10


@cache
def _decoder(binding: Binding) -> RequestDecoder:
    return RequestDecoder(binding)


def decoded(
    binding: Binding, query: bytes, body: bytes, *, headers: Headers | None = None, seconds: float = SMALL_SECONDS
) -> Message | None:
    """The message, None when it was refused as it should be."""
    # A look through all that this process has made in thousands of tests is none of the decoder's time.
    gc.disable()
    began = time.thread_time()
    try:
        message = _decoder(binding).decode(["id_1"] * len(binding.parameters), query, headers or [], body)
    except Refusal as refusal:
        assert (refusal.status, refusal.code) == (400, "validation_error")
        assert len(refusal.details) <= MAX_SHOWN
        error = json.loads(errors.printed(refusal, "req_1"))["error"]
        assert error.keys() == {"code", "message", "details", "request_id"}
        assert error["message"]
        assert all(isinstance(each["field"], str) and each["message"] for each in error["details"])
        message = None
    finally:
        took = time.thread_time() - began
        gc.enable()
    assert took < seconds
    return message


def free_texts(message: Message) -> Iterator[str]:
    """The free JSON in a message, at any depth."""
    for field, value in message.ListFields():
        if field.GetOptions().Extensions[options_pb2.free_json]:
            yield from [value] if isinstance(value, str) else value
        elif field.message_type is not None and not field.message_type.GetOptions().map_entry:
            for each in value if field.is_repeated else [value]:
                yield from free_texts(each)


def is_good(message: Message, body: bytes) -> None:
    """What was taken can be sent on, and its free JSON is the client's own text, good for any reader."""
    assert type(message).FromString(message.SerializeToString()) == message
    for text in free_texts(message):
        assert text.encode() in body
        assert free_json.check(text) is None
        assert isinstance(json.loads(text), dict)


@pytest.mark.parametrize("binding", WITH_BODY, ids=lambda binding: binding.rpc.rpartition("/")[2])
def test_any_body(binding: Binding) -> None:
    @fuzzed(0.5 / len(WITH_BODY))
    @given(bodies(binding.request), HEADERS)
    def holds(body: bytes, headers: Headers) -> None:
        message = decoded(binding, b"", body, headers=headers)
        if message is not None:
            is_good(message, body)

    holds()


@pytest.mark.parametrize("binding", WITH_QUERY, ids=lambda binding: binding.rpc.rpartition("/")[2])
def test_any_query(binding: Binding) -> None:
    @fuzzed(0.18 / len(WITH_QUERY))
    @given(queries(binding))
    def holds(query: bytes) -> None:
        message = decoded(binding, query, b"")
        if message is not None:
            is_good(message, b"")

    holds()


@st.composite
def queries(draw: Callable[[Any], Any], binding: Binding) -> bytes:
    if draw(st.integers(0, 7)) == 0:
        return draw(st.binary(max_size=60))
    pairs: list[str] = []
    for _ in range(draw(st.integers(0, 4))):
        fields = [field for field in binding.request.fields if field.name not in binding.parameters]
        if fields and draw(st.integers(0, 5)):
            field = draw(st.sampled_from(fields))
            name, value = field.name, draw(query_values(field))
        else:
            name, value = draw(st.text(max_size=5)), draw(st.text(max_size=5))
        escaped = quote_plus(value, safe=draw(st.sampled_from(["", ":+", "%"])))
        pairs.append(name + draw(st.sampled_from(["=", "=", "=", "", "==", "%3d"])) + escaped)
    return draw(st.sampled_from(["&", "&", "&&", ";"])).join(pairs).encode()


def filled(begin: str, repeated: str, end: str) -> bytes:
    """The largest body of this kind."""
    count = (MAX_BYTES - len(begin) - len(end)) // len(repeated.encode())
    return (begin + repeated * count + end).encode()


HARD: Final = {
    "numbers nearly too long": filled('{"payload":{"a":[', "1" * 299 + ",", "1]}}"),
    "digits in strings": filled('{"payload":{"a":"', "1" * 299 + " ", '"}}'),
    "longest integers": filled('{"payload":{"a":[', "1" * 4300 + ",", "1]}}"),
    "one fraction": filled('{"payload":{"a":0.', "1", "}}"),
    "exponents": filled('{"payload":{"a":[', "1e1,", "1]}}"),
    "escapes": filled('{"payload":{"a":"', '\\"', '"}}'),
    "brackets": filled('{"payload":{"a":[', "[],", "[]]}}"),
    "strings between brackets": filled('{"payload":{"a":[', '["["],', "1]}}"),
    "an open string": filled('{"payload":{"a":[' + "[" * 99, "\\\\", ""),
    "depth": filled('{"payload":', "[", ""),
    "unknown names": filled("{", '"x":1,', '"x":1}'),
    "the same name": filled("{", '"payload":{},', '"type":"t"}'),
    "labels": filled('{"labels":{', '"\\u0061":"1",', '"b":"1"}}'),
    "bad labels": filled('{"labels":{', '"a":1,', '"b":1}}'),
    "white space": filled("{", " ", "}"),
    "a long name": filled('{"', "é", '":1}'),
    "a long enum": filled('{"priority":"', "x", '"}'),
    "too many tasks": filled('{"tasks":[', "{},", "{}]}"),
    "a long integer": filled('{"timeout":', "1", "}"),
}


@pytest.mark.parametrize("body", HARD.values(), ids=HARD)
@pytest.mark.parametrize("rpc", ["CreateTask", "CreateTasks"])
def test_the_largest_bodies_take_no_longer_than_their_size_asks(body: bytes, rpc: str) -> None:
    binding = next(each for each in BINDINGS if each.rpc.endswith(f"/{rpc}"))
    if rpc == "CreateTasks" and not body.startswith(b'{"tasks"'):
        body = b'{"tasks":[' + body + b"]}"
    message = decoded(binding, b"", body, seconds=LARGE_SECONDS)
    assert message is None or isinstance(message.SerializeToString(), bytes)


@pytest.mark.parametrize(("field", "value"), [("labels", "1"), ("unknown", "1")])
def test_what_is_refused_does_not_grow_with_the_request(field: str, value: str) -> None:
    binding = next(each for each in BINDINGS if each.rpc.endswith("/CreateTask"))
    members = ",".join(f'"k{number}":{value}' for number in range(20_000))
    body = f'{{"{field}":{{{members}}}}}' if field == "labels" else f"{{{members}}}"
    assert decoded(binding, b"", body.encode()) is None
    listed = next(each for each in BINDINGS if each.rpc.endswith("/ListTasks"))
    assert decoded(listed, b"&".join(b"k%d=1" % number for number in range(8_000)), b"") is None
    assert decoded(binding, b"", b"", headers=[(b"idempotency-key", b"")] * 3_000) is None

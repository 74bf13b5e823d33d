import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_orchestration import free_json

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), JSON, max_size=4), st.booleans())
def test_every_object_that_json_can_hold_is_good(value: dict[str, Any], escaped: bool) -> None:
    text = json.dumps(value, ensure_ascii=escaped)
    assert free_json.check(text) is None
    assert free_json.check_well_formed(text) is None


@given(JSON.filter(lambda value: not isinstance(value, dict)))
def test_nothing_but_an_object_is_good(value: Any) -> None:
    assert free_json.check(json.dumps(value)) == "must be a JSON object"


@given(JSON, st.booleans())
def test_any_value_is_good_where_any_is_asked_for(value: Any, escaped: bool) -> None:
    text = json.dumps(value, ensure_ascii=escaped)
    assert free_json.check(text, is_any=True) is None
    assert free_json.check_well_formed(text, is_any=True) is None


@given(st.text(max_size=20))
def test_any_text_gets_an_answer_that_agrees_with_json(text: str) -> None:
    if free_json.check(text) is None:
        assert isinstance(json.loads(text), dict)
    if free_json.check(text, is_any=True) is None:
        json.loads(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": NaN}', "well-formed"),
        ('{"a": -Infinity}', "well-formed"),
        ('{"a": 1e400}', "double"),
        ('{"a": [-1E+309]}', "double"),
        ('{"a": %s.5}' % ("9" * 400), "double"),
        ('{"a": %s}' % ("1" * 4301), "4300 digits"),
        ('{"a": "\\ud800"}', "surrogates"),
        ('{"a": "\\udc00"}', "surrogates"),
        ('{"\\ud800\\u0041": 1}', "surrogates"),
        ('{"a": "\ud800"}', "surrogates"),
        ('{"a": %s}' % ("[" * 100 + "]" * 100), "deeper than 100"),
        ('{"a": %s' % ("[" * 100_000), "deeper than 100"),
        ('{"a": 1', "complete"),
        ("", "complete"),
        ("\ufeff{}", "well-formed"),
        ('{"a": 1} x', "well-formed"),
        ('{"a": 01}', "well-formed"),
        ("{'a': 1}", "well-formed"),
    ],
)
def test_what_is_refused(text: str, reason: str) -> None:
    assert reason in (free_json.check(text) or "")
    assert reason in (free_json.check(text, is_any=True) or "")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("NaN", "well-formed"),
        ("-1E+309", "double"),
        ("-" + "1" * 4301, "4300 digits"),
        ('"\\ud800"', "surrogates"),
        ('"\ud800"', "surrogates"),
        ("[" * 101 + "]" * 101, "deeper than 100"),
        ("[1] x", "well-formed"),
        (" ", "complete"),
    ],
)
def test_what_is_refused_though_any_value_is_asked_for(text: str, reason: str) -> None:
    assert reason in (free_json.check(text, is_any=True) or "")


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 12345678901234567890123, "z": 1.0, "b": -0.0, "a": "twice"}',
        '{"a": %s}' % ("1" * 4300),
        '{"a": 1e-400, "b": 1.7976931348623157e308}',
        '{"a": "1e400 in a string, %s"}' % ("9" * 5000),
        '{"a": %s}' % ("[" * 99 + "]" * 99),
        '{"a": [%s[]]}' % ("[]," * 200),
        '{"a": "' + "[" * 500 + ' \\" ' + "{" * 500 + '"}',
        '{"a": "\\u0000 \\\\u0000 \\ud83d\\ude00"}',
        " \t\r\n{}",
    ],
)
def test_what_is_taken(text: str) -> None:
    assert free_json.check(text) is None
    assert free_json.check(text, is_any=True) is None


@pytest.mark.parametrize(
    "text", ["-" + "1" * 4300, '"' + "[" * 500 + '"', "[" * 100 + "]" * 100, ' "1e400" ', "[%s[]]" % ("[]," * 200)]
)
def test_what_is_taken_where_any_value_is_asked_for(text: str) -> None:
    assert free_json.check(text, is_any=True) is None

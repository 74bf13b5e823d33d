"""Expressions of workflows: what they may read is found before they run, and nothing but BadExpression leaves them."""

import json
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ao_server.engine.workflows.expressions import MAX_LENGTH, BadExpression, is_true, parse
from ao_server.engine.workflows.interpreter import Budget

VALUES: dict[str, Any] = {
    "parameters": {"rows": [{"id": 1, "tags": ["x"]}, {"id": 2, "tags": []}], "limit": 1, "name": "n"},
    "steps": {"a": {"output": {"rows": [3, 4], "x": {"y": 5}}}, "a-b": {"output": "quoted"}, "b": {"output": None}},
    "item": {"id": 7},
    "index": 2,
}


@pytest.mark.parametrize(
    ("text", "steps", "reads_item", "result"),
    [
        ("parameters.limit", "", False, 1),
        ("parameters", "", False, VALUES["parameters"]),
        ("steps.a.output.x.y", "a", False, 5),
        ('steps."a-b".output', "a-b", False, "quoted"),
        ('"steps"."a"."output" | x.y', "a", False, 5),
        ("steps.a | output.x | @.y", "a", False, 5),
        ("(steps.a).output.rows[-1]", "a", False, 4),
        ("steps.[a.output.x.y, b.output]", "a b", False, [5, None]),
        ("{mine: item.id, at: index, all: steps.a.output.rows[]}", "a", True, {"mine": 7, "at": 2, "all": [3, 4]}),
        ("parameters.rows[?@.id > `1`].id", "", False, [2]),
        ("parameters.rows[?tags].[id, steps, @.item]", "", False, [[1, None, None]]),
        ("parameters.rows[*].tags[] | [0]", "", False, "x"),
        ("parameters.* | length(@)", "", False, 3),
        ("steps.a.output.rows[0:1]", "a", False, [3]),
        ("max_by(parameters.rows, &id).id", "", False, 2),
        ("map(&[@], steps.a.output.rows)", "a", False, [[3], [4]]),
        ("steps.b.output || steps.a.output.x && !(index == `0`)", "a b", True, True),
        ("`{\"n\": 1}`.n", "", False, 1),
    ],
)  # fmt: skip
def test_an_expression_says_what_it_reads(text: str, steps: str, reads_item: bool, result: Any) -> None:
    expression = parse(text)
    assert (expression.steps, expression.reads_item) == (frozenset(steps.split()), reads_item)
    assert expression.evaluate(VALUES, Budget()) == result


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("steps", "`steps` as a whole"),
        ("steps.a", "`steps.a` as a whole"),
        ("steps.a.status", "`steps.a.status`"),
        ("steps.*.output", "`steps` as a whole"),
        ("steps[0]", "`steps` as a whole"),
        ("keys(steps)", "`steps` as a whole"),
        ("steps | keys(@)", "`steps` as a whole"),
        ("[steps.a][0].output", "`steps.a` as a whole"),
        ("(steps || parameters).a", "`steps` as a whole"),
        ("@", "everything at once (`@`)"),
        ("*", "everything at once (`@`)"),
        ("[?x]", "everything at once (`@`)"),
        ("to_string(@)", "everything at once (`@`)"),
        ("parameter.x", "`parameter`"),
        ("{x: parameters.x == y}", "`y`"),
        ("parameters.rows && previous", "`previous`"),
        ("sort_by(rows, &id)", "`rows`"),
    ],
)
def test_what_is_below_no_root_is_refused_and_named(text: str, what: str) -> None:
    with pytest.raises(BadExpression) as refusal:
        parse(text)
    assert str(refusal.value) == f"{what} cannot be read, only `parameters`, `steps.<id>.output`, `item` and `index`"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        (" \n", "is empty"),
        ("parameters.a b", "unexpected 'b' at character 14"),
        ("parameters.a = 1", "unknown token '=' at character 14"),
        ("parameters.'a'", "unexpected 'a' at character 12"),
        ("length(parameters", "ends too soon"),
        ("steps.a.", "ends too soon"),
        ("item[", "ends too soon"),
        ("'open", "unclosed ' delimiter at character 1"),
        ("lenght(item)", "there is no function lenght()"),
        ("length(item, item)", "length() takes 1 argument, not 2"),
        ("merge()", "merge() takes at least 1 argument, not 0"),
        ("sort_by(item, id)", "sort_by() takes an expression (`&name`) as argument 2"),
        ("not_null(&a)", "not_null() takes a value, not an expression, as argument 1"),
        ("[&a]", "`&` stands only before an argument of a function"),
        ('`"\\ud800"`', "has half of a surrogate pair"),
        ('steps."\\ud800".output', "has half of a surrogate pair"),
        ("!" * 150 + "item", "is nested more than 100 deep"),
        ("!" * 1_900 + "item", "is nested too deeply"),
        ("(" * 900 + "item" + ")" * 900, "has more than 100 parentheses"),
        ("(" * 3_000, "has 3,000 characters, at most 2,000 are allowed"),
    ],
)
def test_a_mistake_is_named_with_its_position(text: str, message: str) -> None:
    with pytest.raises(BadExpression) as refusal:
        parse(text)
    assert str(refusal.value) == message


@pytest.mark.parametrize("text", ["(" * 100 + "item" + ")" * 100, "!" * 99 + "item", "item" + "|[0]" * 90])
def test_what_is_accepted_also_runs(text: str) -> None:
    parse(text).evaluate(VALUES, Budget())


def _deep(levels: int) -> Any:
    value: Any = "secret"
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("text", "item", "message"),
    [
        ("abs(item)", "secret", "abs() does not take a value of type string"),
        ("sum(item)", [1, "secret"], "sum() does not take a value of type string"),
        ("item < `1`", "secret", "cannot be computed with these values"),
        ("ceil(item)", float("inf"), "a number is too large"),
        ("avg(item)", [10**400], "a number is too large"),
        ("to_string(item)", _deep(100_000), "the values are nested too deeply"),
        ("to_string(item)", [10**5_000], "cannot be computed with these values"),
        ("item[::0]", [1], "cannot be computed with these values"),
    ],
)
def test_a_failure_on_values_quotes_none_of_them(text: str, item: Any, message: str) -> None:
    with pytest.raises(BadExpression) as failure:
        parse(text).evaluate({"item": item}, Budget())
    assert str(failure.value) == message


def test_empty_values_and_null_are_false_but_zero_is_true() -> None:
    assert not any(is_true(value) for value in (None, False, "", list[Any](), dict[str, Any]()))
    assert all(is_true(value) for value in (0, 0.0, True, "false", [None], {"": None}))


NAMES = st.sampled_from(["parameters", "steps", "item", "index", "a", "b", "output", "rows", "id", '"a-b"'])
READS = st.sampled_from(["parameters.rows", "steps.a.output", 'steps."a-b".output', "steps.b.output", "item", "index"])
LEAVES = READS | NAMES | st.sampled_from(["@", "*", "`1`", "'s'", "rows[]", "`[[1], 2]`"])


def _larger(part: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    two = st.tuples(part, part)
    return st.one_of(
        st.tuples(two, st.sampled_from([".", " | ", " || ", " && ", " == ", " < "])).map(lambda e: e[1].join(e[0])),
        st.tuples(part, st.sampled_from(["[0]", "[*]", "[]", ".*", "[1:]", ""])).map("".join),
        two.map(lambda e: f"{e[0]}[?{e[1]}]"),
        two.map(lambda e: f"[{e[0]}, {e[1]}]"),
        two.map(lambda e: f"{{x: {e[0]}, rows: {e[1]}}}"),
        two.map(lambda e: f"map(&{e[0]}, {e[1]})"),
        st.tuples(st.sampled_from(["!", "(", "length(", "to_string(", "values("]), part).map(
            lambda e: f"{e[0]}{e[1]}{')' if '(' in e[0] else ''}"
        ),
    )


def _outcome(text: str, values: dict[str, Any]) -> Any:
    try:
        return parse(text).evaluate(values, Budget())
    except BadExpression as failure:
        return str(failure)


@given(st.recursive(LEAVES, _larger, max_leaves=8))
def test_only_what_an_expression_says_it_reads_has_a_part_in_its_result(text: str) -> None:
    try:
        expression = parse(text)
    except BadExpression:
        assume(False)
        raise
    others = {step: {"output": {"rows": [{"id": step}], "a": step}} for step in (*VALUES["steps"], "rows", "id")}
    values = VALUES | {"steps": others | {step: VALUES["steps"].get(step) for step in expression.steps}}
    if not expression.reads_item:
        values |= {"item": "another", "index": 99}
    assert _outcome(text, values) == _outcome(text, VALUES)


@given(st.recursive(LEAVES, _larger, max_leaves=12))
def test_no_expression_gives_more_than_its_cost(text: str) -> None:
    try:
        expression = parse(text)
        result = expression.evaluate(VALUES, Budget())
    except BadExpression:
        assume(False)
        raise
    # The cost is in characters without spaces, as texts of JSON are counted by their own, and a null counts as one.
    whole = len(json.dumps(VALUES, separators=(",", ":")))
    assert len(json.dumps(result, separators=(",", ":"))) - 3 * _nulls(result) <= expression.cost(whole)


def _nulls(value: Any) -> int:
    match value:
        case list():
            return sum(_nulls(each) for each in value)  # pyright: ignore[reportUnknownVariableType] - any JSON
        case dict():
            return sum(_nulls(each) for each in value.values())  # pyright: ignore[reportUnknownVariableType] - any JSON
        case _:
            return value is None


@pytest.mark.filterwarnings("ignore:deprecated string literal:PendingDeprecationWarning")
@given(st.text(max_size=MAX_LENGTH) | st.text("steparmio.[]{}()*?&|!<=>@`'\"\\,:0123-u", max_size=60))
def test_no_text_raises_anything_else(text: str) -> None:
    _outcome(text, VALUES)

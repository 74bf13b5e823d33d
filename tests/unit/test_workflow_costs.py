"""What an expression may cost: one that would hold up the store, or give more than fits into memory, fails its step."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from ao_server.engine.workflows import definition, evaluation
from ao_server.engine.workflows.definition import Node
from ao_server.engine.workflows.evaluation import Batch, CannotBegin, Values
from ao_server.engine.workflows.expressions import parse
from ao_server.engine.workflows.interpreter import Budget
from ao_server.engine.workflows.steps import Step

ONES = {"l": [1] * 200_000}
RECORDS = {"l": [{"id": n, "name": f"name {n}", "active": n % 2 == 0} for n in range(20_000)], "source": "sales.csv"}


@pytest.mark.parametrize(
    ("text", "parameters"),
    [
        ("{x: parameters.p" + " | [@, @]" * 40 + "}", {"p": 1}),
        ("[parameters.p]" + " | [@, @][]" * 40, {"p": 1}),
        ("{x: parameters.p" + " | {a: @, b: @}" * 40 + "} == `1`", {"p": 1}),
        ("map(&" * 40 + "@" + ", [@, @])" * 39 + ", parameters.p)", {"p": [1]}),
        ("{x: " + "to_string([" * 30 + "parameters.p" + "])" * 30 + "}", {"p": '"' * 100}),
        ("parameters.l[*].{a: '" + "x" * 1_900 + "'}", ONES),
        ("join(parameters.s, parameters.l)", {"s": "x" * 100_000, "l": [""] * 100_000}),
        ("length(parameters.l[?@ > `5`" + " || @ > `5`" * 5 + "])", ONES),
        ("map(&[@, @, @, @], parameters.l)", ONES),
    ],
)
def test_an_expression_that_is_too_costly_is_not_computed_to_its_end(text: str, parameters: Any) -> None:
    assert _fails(lambda: Values(json.dumps(parameters), {}).evaluate(parse(text), Budget())) == "expression_too_costly"


@pytest.mark.parametrize(
    "text",
    [
        "parameters",
        "{records: parameters.l[?active && name != 'x'].{id: id, name: name}, from: parameters.source}",
        "join(parameters.source, parameters.l[].name)",
        "sort_by(parameters.l, &name)[-1]",
        "{text: to_string(parameters)}",
    ],
)
def test_work_that_is_usual_is_done_over_large_values(text: str) -> None:
    assert Values(json.dumps(RECORDS), {}).evaluate(parse(text), Budget())


def test_items_that_begin_together_have_one_budget() -> None:
    node = _each("{item: item, larger: length(parameters.l[?@ > `5`])}")
    values, batch = Values(json.dumps({"l": [1] * 2_000}), {}), Batch(Budget())
    evaluation.item_payload(node, values, 1, 0, batch)

    def all_of_them() -> None:
        for index in range(1, 2_000):
            evaluation.item_payload(node, values, 1, index, batch)

    assert _fails(all_of_them) == "expression_too_costly"


def test_inputs_of_items_that_begin_together_are_bounded_in_bytes() -> None:
    node = _each("{item: item, all: parameters}")
    values, batch = Values(json.dumps({"text": "x" * 1_000_000}), {}), Batch(Budget())
    for index in range(100):
        evaluation.item_payload(node, values, 1, index, batch)

    def many_more() -> None:
        for index in range(100, 1_000):
            evaluation.item_payload(node, values, 1, index, batch)

    assert _fails(many_more) == "input_too_large"


def _each(text: str) -> Node:
    return definition.compiled([Step("s", "s", agent_type="t", for_each="parameters.l", input=text)]).nodes[0]


def _fails(call: Callable[[], Any]) -> str:
    with pytest.raises(CannotBegin) as refused:
        call()
    return refused.value.failure.code

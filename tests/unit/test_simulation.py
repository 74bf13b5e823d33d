"""Simulations of workflows: what would happen, without anything happening."""

import json
from typing import Any

import pytest

from ao_server.engine.workflows import simulation
from ao_server.engine.workflows.definition import Compensation, Step, compiled
from ao_server.engine.workflows.simulation import Outcome, Simulation, simulate
from ao_server.errors import Invalid


def a_step(id: str, **fields: Any) -> Step:
    return Step(id=id, name=id, **({"agent_type": "worker"} if "kind" not in fields else {}), **fields)


def simulated(*steps: Step, parameters: str = "{}", **outcomes: Outcome) -> Simulation:
    return simulate(compiled(steps), parameters, outcomes)


def test_steps_that_run_at_the_same_time_are_one_group() -> None:
    found = simulated(a_step("load", order=3), a_step("a", order=2), a_step("b", order=2), a_step("extract", order=1))
    assert found.status == "completed" and found.error is None
    assert found.groups == [["extract"], ["a", "b"], ["load"]]
    assert [(each.step.id, each.group) for each in found.steps] == [("extract", 1), ("a", 2), ("b", 2), ("load", 3)]


def test_conditions_and_lists_read_parameters_and_assumed_outputs() -> None:
    found = simulated(
        a_step("find"),
        a_step("each", for_each="steps.find.output.rows", input="{row: item}", max_parallel=2),
        a_step("never", condition="parameters.wanted"),
        a_step("sum", condition="length(steps.each.output) == `3`"),
        parameters='{"wanted": false}',
        find=Outcome(output='{"rows": [1, 2, 3]}'),
        each=Outcome(output="7"),
    )
    assert [each.items for each in found.steps if each.step.id == "each"] == [3]
    assert found.skipped == ["never"] and found.groups[-1] == ["sum"]
    assert {each.step.id: each.group for each in found.steps}["never"] is None


def test_a_list_from_an_output_that_nobody_assumed_has_one_item() -> None:
    steps = a_step("find"), a_step("each", for_each="steps.find.output")
    unknown, known = simulated(*steps), simulated(*steps, find=Outcome(output="5"))
    assert [each.items for each in unknown.steps] == [None, 1]
    assert known.status == "failed" and known.error is not None and known.error.code == "not_a_list"


def test_a_failure_shows_what_is_undone_and_what_never_begins() -> None:
    undo = Compensation(type="undo")
    found = simulated(
        a_step("a", compensate=undo),
        a_step("b", compensate=undo),
        Step("ask", "ask", "approval", on_failure="compensate"),
        a_step("after"),
        ask=Outcome(fails=True),
    )
    assert found.status == "failed" and found.error is not None and found.error.code == "rejected"
    assert found.compensation == ["b", "a"]
    assert [(each.step.id, each.status, each.group) for each in found.steps][-1] == ("after", "cancelled", None)


def test_the_most_items_are_played_in_moderate_time() -> None:
    items = ",".join(["1"] * 100_000)
    found = simulated(a_step("each", for_each="parameters.items"), parameters=f'{{"items": [{items}]}}')
    assert found.status == "completed" and found.steps[0].items == 100_000


def test_more_than_can_be_played_through_is_refused() -> None:
    items = ",".join(["1"] * 60_000)
    twice = [a_step(id, for_each="parameters.items") for id in "ab"]
    with pytest.raises(Invalid, match="100,000 items"):
        simulated(*twice, parameters=f'{{"items": [{items}]}}')


def test_more_than_some_seconds_of_computing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulation, "MAX_COMPUTED", 20_000)
    costly = [a_step(f"s{n}", condition="length(parameters.l[?@ > `5`]) > `0`", order=1) for n in range(20)]
    with pytest.raises(Invalid, match="too much to be simulated"):
        simulated(*costly, parameters=json.dumps({"l": [1] * 1_000}))

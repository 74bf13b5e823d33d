"""Definitions of workflows: what compiles means what the steps say, and what does not names each mistake."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from time import process_time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ao_server.engine import retries
from ao_server.engine.workflows.definition import Compensation, Graph, Step, compiled, decode, encode
from ao_server.errors import Invalid


def a_step(id: str, **fields: Any) -> Step:
    return Step(id=id, name=id.upper(), **({"agent_type": "worker"} if "kind" not in fields else {}), **fields)


def problems(*steps: Step) -> list[tuple[str, str]]:
    with pytest.raises(Invalid) as refusal:
        compiled(steps)
    return [(each.field, each.message) for each in refusal.value.details]


def begun_in_waves(graph: Graph) -> list[set[str]]:
    """Which steps begin together when each step takes one turn and joins take none."""
    done: set[int] = set()
    waves: list[set[str]] = []
    while len(done) < len(graph.nodes):
        ready = [node for node in graph.nodes if node.place not in done and done.issuperset(node.needs)]
        joins = {node.place for node in ready if node.step is None}
        if not joins:
            waves.append({node.step.id for node in ready if node.step is not None})
        done |= joins or {node.place for node in ready}
    return waves


def ancestors(graph: Graph, place: int) -> set[int]:
    found: set[int] = set()
    ahead = list(graph.nodes[place].needs)
    while ahead:
        at = ahead.pop()
        if at not in found:
            found.add(at)
            ahead += graph.nodes[at].needs
    return {each for each in found if graph.nodes[each].step is not None}


def test_what_is_stored_is_read_back_and_holds_no_defaults() -> None:
    steps = [
        a_step("a", depends_on=[], retry=retries.Policy(attempts=2), timeout=1_000_000),
        Step("b", "B", kind="approval", depends_on=["a"], on_failure="compensate"),
        a_step("c", for_each="parameters.rows", input="item", compensate=Compensation(type="undo")),
    ]
    assert decode(encode(steps)) == steps
    assert encode(steps[:1]) == (
        '[{"id":"a","name":"A","agent_type":"worker","depends_on":[],"retry":{"attempts":2},"timeout":1000000}]'
    )


def test_steps_without_orders_go_in_the_order_of_the_list() -> None:
    graph = compiled([a_step("b"), a_step("a"), a_step("c")])
    assert begun_in_waves(graph) == [{"b"}, {"a"}, {"c"}]
    assert (graph.sinks, graph.reads(2), graph.places) == ((2,), frozenset({1}), {"b": 0, "a": 1, "c": 2})


def test_any_dependency_even_none_makes_order_mere_display() -> None:
    graph = compiled([a_step("a", order=3), a_step("b", order=1, depends_on=[]), a_step("c", order=2)])
    assert begun_in_waves(graph) == [{"a", "b", "c"}]
    assert graph.sinks == (0, 1, 2)


@given(st.lists(st.none() | st.integers(-2, 6), min_size=1, max_size=12))
def test_steps_of_equal_order_begin_together_when_all_of_lower_order_have_ended(orders: list[int | None]) -> None:
    graph = compiled([a_step(f"s{place}", order=order) for place, order in enumerate(orders)])
    groups: dict[int, set[str]] = {}
    for place, order in enumerate(orders):
        groups.setdefault(place + 1 if order is None else order, set()).add(f"s{place}")
    waves = [groups[order] for order in sorted(groups)]
    assert begun_in_waves(graph) == waves
    for before, wave in zip([set[str](), *waves], waves, strict=False):
        for id in wave:
            assert {graph.nodes[each].step.id for each in graph.waits_for(graph.places[id])} == before  # type: ignore[union-attr]
    assert {f"s{place}" for place in graph.sinks} == waves[-1]
    assert sum(len(node.needs) for node in graph.nodes) <= 2 * len(orders)


@st.composite
def dags(draw: st.DrawFn) -> list[Step]:
    """Steps in any order of the list, each of which depends on some of those before it in a hidden order."""
    ids = draw(st.permutations([f"s{number}" for number in range(draw(st.integers(1, 10)))]))
    steps = [
        a_step(id, depends_on=draw(st.lists(st.sampled_from(ids[:at]), unique=True)) if at else [])
        for at, id in enumerate(ids)
    ]
    return sorted(steps, key=lambda step: step.id)


ORDERED = st.lists(st.integers(0, 4), min_size=1, max_size=10).map(
    lambda orders: [a_step(f"s{place}", order=order) for place, order in enumerate(orders)]
)


@given(dags())
def test_dependencies_are_the_edges(steps: list[Step]) -> None:
    graph = compiled(steps)
    for place, step in enumerate(steps):
        assert [steps[each].id for each in graph.waits_for(place)] == step.depends_on
        assert graph.reads(place) == set(graph.waits_for(place))
    assert {steps[each].id for each in graph.sinks} == {step.id for step in steps}.difference(
        *(step.depends_on or () for step in steps)
    )


@given(dags() | ORDERED, st.randoms(use_true_random=False))
def test_looking_at_what_an_end_touched_finds_everything_that_becomes_ready(steps: list[Step], random: Any) -> None:
    graph = compiled(steps)
    done: set[int] = set()
    waiting = {node.place for node in graph.nodes if not node.needs}
    while waiting:
        ended = random.choice(sorted(waiting))
        waiting.remove(ended)
        done.add(ended)
        for each in graph.touched(ended):
            if graph.nodes[each].step is None and done.issuperset(graph.nodes[each].needs):
                done.add(each)
        waiting |= {each for each in graph.touched(ended) if done.issuperset(graph.nodes[each].needs)} - done
        all_ready = {node.place for node in graph.nodes if done.issuperset(node.needs)} - done
        assert waiting == all_ready
    assert len(done) == len(graph.nodes)


@given(dags(), st.data())
def test_a_back_edge_is_refused_with_a_true_cycle(steps: list[Step], data: st.DataObject) -> None:
    graph = compiled(steps)
    pairs = [(late, early) for late in range(len(steps)) for early in ancestors(graph, late)]
    if not pairs:
        return
    late, early = data.draw(st.sampled_from(pairs))
    depends_on = [*(steps[early].depends_on or ()), steps[late].id]
    steps[early] = a_step(steps[early].id, depends_on=depends_on)
    [(field, message)] = problems(*steps)
    start, _, chain = message.partition(": is in a cycle: ")
    names = [name.strip("'") for name in chain.split(" needs ")]
    assert names[0] == names[-1] and len(set(names)) == len(names) - 1 > 1
    assert (field, start) == (f"steps[{graph.places[names[0]]}].depends_on", f"step '{names[0]}'")
    needs = {step.id: step.depends_on or () for step in steps}
    assert all(after in needs[name] for name, after in pairwise(names))


@given(dags() | ORDERED, st.data())
def test_a_step_may_read_just_the_steps_that_end_before_it(steps: list[Step], data: st.DataObject) -> None:
    graph = compiled(steps)
    reader = data.draw(st.integers(0, len(steps) - 1))
    read = data.draw(st.integers(0, len(steps) - 1))
    fields = {"order": steps[reader].order, "depends_on": steps[reader].depends_on}
    steps[reader] = a_step(steps[reader].id, condition=f"steps.{steps[read].id}.output", input="`1`", **fields)
    if read in ancestors(graph, reader):
        assert compiled(steps).reads(reader) == {read}
    else:
        assert [field for field, _ in problems(*steps)] == [f"steps[{reader}].condition"]


def test_all_problems_are_named_at_once_by_step_and_field() -> None:
    found = problems(
        a_step("a", depends_on=["a", "nowhere"], max_parallel=3),
        a_step("a", depends_on=[], on_failure="explode"),
        a_step("1st", depends_on=["a", "a"], condition="steps.zz.output", input="item.x"),
        Step("n", "N"),
        a_step("d", for_each="item", max_parallel=10_001, input="steps.d.output || index"),
        a_step("e", compensate=Compensation(input="[steps.e.output, steps.a.output, item]"), condition="foo("),
    )
    item = "`item` and `index` are known only in the `input` of a step with for_each"
    assert found == [
        ("steps[0].max_parallel", "step 'a': has a meaning only with for_each"),
        ("steps[0].depends_on", "step 'a': names the step itself"),
        ("steps[0].depends_on", "step 'a': no step has the id 'nowhere'"),
        ("steps[1].on_failure", "step 'a': must be one of fail, continue, compensate"),
        ("steps[1].id", "step 'a': steps[0] has the same id"),
        ("steps[2].id", "step '1st': an id is 1 to 64 letters, digits, `_` and `-`, and begins with a letter or `_`"),
        ("steps[2].depends_on", "step '1st': names 'a' twice"),
        ("steps[2].condition", "step '1st': reads the output of 'zz', and no step has this id"),
        ("steps[2].input", f"step '1st': {item}"),
        ("steps[3].agent_type", "step 'n': a task step needs it"),
        ("steps[4].max_parallel", "step 'd': must be 1 to 10,000"),
        ("steps[4].for_each", f"step 'd': {item}"),
        ("steps[4].input", "step 'd': reads the step's own output"),
        ("steps[5].condition", "step 'e': ends too soon"),
        ("steps[5].compensate.input", f"step 'e': {item}"),
        (
            "steps[5].compensate.input",
            "step 'e': reads the output of 'a', which does not have to end before this step",
        ),
    ]


@pytest.mark.parametrize(
    ("kind", "refused"),
    [
        ("task", ["workflow_id"]),
        ("approval", ["agent_type", "type", "for_each", "max_parallel", "retry", "compensate", "workflow_id"]),
        ("workflow", ["agent_type", "type", "retry", "compensate"]),
    ],
)
def test_each_kind_of_step_takes_its_own_fields(kind: str, refused: Sequence[str]) -> None:
    full = Step(
        "s", "S", kind=kind, agent_type="worker", type="t", input="parameters", condition="parameters",
        for_each="parameters", max_parallel=1, retry=retries.Policy(), timeout=1, on_failure="compensate",
        compensate=Compensation(), workflow_id="workflow_1",
    )  # fmt: skip
    assert [field.removeprefix("steps[0].") for field, _ in problems(full)] == refused
    needed = {"task": ["agent_type"], "approval": [], "workflow": ["workflow_id"]}[kind]
    if needed:
        assert [field for field, _ in problems(Step("s", "S", kind=kind))] == [f"steps[0].{field}" for field in needed]
    else:
        compiled([Step("s", "S", kind=kind)])


def test_an_unknown_kind_is_refused() -> None:
    assert problems(Step("s", "S", kind="magic")) == [
        ("steps[0].kind", "step 's': must be one of task, approval, workflow")
    ]


def test_what_a_step_reads_to_begin_is_what_it_names_or_what_its_default_payload_shows() -> None:
    graph = compiled(
        [
            a_step("a", order=1),
            a_step("b", order=1),
            a_step("shown", order=2),
            a_step("named", order=2, input="steps.a.output", condition="steps.b.output"),
            a_step("each", order=3, for_each="steps.named.output", compensate=Compensation(input="steps.each.output")),
            Step("approval", "A", kind="approval", order=3),
            Step("inner", "I", kind="workflow", order=3, workflow_id="workflow_1"),
        ]
    )
    assert [set(graph.reads(place)) for place in range(7)] == [set(), set(), {0, 1}, {0, 1}, {3}, set(), set()]
    undo = graph.nodes[4].undo_input
    assert undo is not None and undo.steps == {"each"}


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([], "steps: there are 0, 1 to 1,000 are allowed"),
        ([a_step(f"s{n}") for n in range(1_001)], "steps: there are 1,001, 1 to 1,000 are allowed"),
        (
            [a_step(f"s{n}", depends_on=["s0"] * 101) for n in range(100)],
            "steps: there are 10,100 dependencies, at most 10,000 are allowed",
        ),
        (
            [a_step(f"s{n}", input=f"'{'x' * 1_990}'") for n in range(101)],
            "steps: expressions have 201,192 characters, 200,000 in all are allowed",
        ),
    ],
)
def test_a_definition_has_a_greatest_size(steps: list[Step], message: str) -> None:
    with pytest.raises(Invalid, match=f"^{message}$"):
        compiled(steps)


def _two_wide(place: int) -> dict[str, Any]:
    return {"order": place // 500}


def _ten_back(place: int) -> dict[str, Any]:
    return {"depends_on": [f"s{each}" for each in range(max(0, place - 10), place)]}


@pytest.mark.parametrize("shape", [_two_wide, _ten_back])
def test_the_largest_definitions_compile_quickly(shape: Callable[[int], dict[str, Any]]) -> None:
    steps = [a_step(f"s{place}", **shape(place)) for place in range(1_000)]
    compiled(steps)
    begun = process_time()
    compiled(steps)
    assert process_time() - begun < 0.05

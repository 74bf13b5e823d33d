"""What one transaction computes for an execution is bounded: nobody else writes meanwhile."""

from typing import Any

import pytest

from ao_server.engine.workflows import budgets, executions
from ao_server.engine.workflows.definition import Compensation
from ao_server.engine.workflows.interpreter import Interpreter
from tests.store.fleet_world import PROJECT
from tests.store.workflow_world import Flows, step

LIMIT = 20_000
# Some 4,000 visits, over a list of a thousand.
COSTLY = "parameters.of[?@ > `5`]"


@pytest.fixture
def visits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often nodes are visited, as its length."""
    found: list[int] = []
    visit = Interpreter.visit

    def counted(self: Interpreter, node: Any, *rest: Any, **more: Any) -> Any:
        found.append(1)
        return visit(self, node, *rest, **more)

    monkeypatch.setattr(Interpreter, "visit", counted)
    monkeypatch.setattr(budgets, "MAX_COMPUTED", LIMIT)
    return found


async def test_the_conditions_of_steps_that_begin_together(flows: Flows, visits: list[int]) -> None:
    steps = [step(f"s{n}", condition=COSTLY, order=1, on_failure="continue") for n in range(20)]
    execution = await flows.execute(await flows.keep(steps), of=[1] * 1_000)
    assert len(visits) < LIMIT + 100
    codes = [row.error_code for row in await flows.steps(execution)]
    assert codes[0] is None and codes[-1] == "expression_too_costly"
    assert (await flows.execution(execution)).status == "completed"


async def test_the_inputs_of_items_of_which_each_fails(flows: Flows, visits: list[int]) -> None:
    many = step("many", for_each="parameters.of", input=COSTLY, on_failure="continue", max_parallel=2)
    execution = await flows.execute(await flows.keep([many]), of=[1] * 1_000)
    assert len(visits) < LIMIT + 2_000
    assert await flows.statuses(execution, 1) == ["failed"]
    assert (await flows.execution(execution)).status == "completed"


async def test_executions_within_executions(flows: Flows, visits: list[int]) -> None:
    inner = await flows.keep([step("in", condition=COSTLY)], "inner")
    many = step("many", kind="workflow", workflow_id=inner, for_each="parameters.of[:20]", on_failure="continue")
    await flows.execute(await flows.keep([many]), of=[1] * 1_000)
    assert len(visits) < LIMIT + 2_000


async def test_what_undoes_steps(flows: Flows, visits: list[int]) -> None:
    undone = [step(f"s{n}", order=1, compensate=Compensation(input=COSTLY)) for n in range(20)]
    execution = await flows.execute(
        await flows.keep([*undone, step("z", order=2, on_failure="compensate", kind="approval")]), of=[1] * 1_000
    )
    await flows.work(lambda task, payload: {})
    visits.clear()
    await flows.submit(executions.decide(PROJECT, execution, 20, "rejected", "Ada", None))
    assert len(visits) < LIMIT + 100
    assert (await flows.execution(execution)).status == "failed"

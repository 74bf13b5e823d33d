"""Workflows tried out, over REST and gRPC alike."""

from typing import Any

from tests.contract.conftest import Api

STEPS: list[dict[str, Any]] = [
    {"id": "extract", "agent_type": "nobody", "order": 1, "compensate": {"agent_type": "cleaner"}},
    {"id": "left", "agent_type": "nobody", "order": 2, "for_each": "steps.extract.output.rows"},
    {"id": "right", "agent_type": "nobody", "order": 2, "condition": "parameters.both"},
    {"id": "load", "agent_type": "loader", "order": 3, "on_failure": "compensate"},
]
ROWS = {"step_id": "extract", "output": {"rows": [1, 2, 3]}}


async def test_it_says_what_would_begin_when_and_what_would_be_skipped(api: Api) -> None:
    made = await api.post("/workflows", {"name": "Tried", "steps": STEPS})
    kept = await api.post(f"/workflows/{made.data['id']}/simulate", {"outcomes": [ROWS]})
    loose = await api.post("/workflows/simulate", {"steps": STEPS, "outcomes": [ROWS]})
    assert kept.status == 200, kept
    assert kept.data == loose.data
    assert kept.data["status"] == "completed"
    assert kept.data["groups"] == [["extract"], ["left"], ["load"]]
    assert kept.data["skipped"] == ["right"]
    assert kept.data["compensation"] == []
    assert kept.data["missing_agents"] == ["loader", "nobody"]
    assert "expected_duration" not in kept.data
    steps = {step["id"]: step for step in kept.data["steps"]}
    assert (steps["left"]["items"], steps["left"]["group"], steps["left"]["status"]) == (3, 2, "completed")
    assert (steps["right"]["status"], "group" in steps["right"]) == ("skipped", False)


async def test_it_says_what_a_failure_leads_to(api: Api) -> None:
    outcomes = [ROWS, {"step_id": "load", "status": "failed"}]
    played = await api.post("/workflows/simulate", {"steps": STEPS, "outcomes": outcomes, "parameters": {"both": True}})
    assert (played.data["status"], played.data["compensation"]) == ("failed", ["extract"])
    assert played.data["groups"] == [["extract"], ["left", "right"], ["load"]]
    assert played.data["missing_agents"] == ["cleaner", "loader", "nobody"]
    assert played.data["error"]["message"].startswith("step 'load'")


async def test_it_knows_the_workflows_below(api: Api) -> None:
    inner = (await api.post("/workflows", {"name": "Inner", "steps": [{"agent_type": "nobody_below"}]})).data["id"]
    middle = [{"kind": "workflow", "workflow_id": inner}, {"agent_type": "nobody"}]
    outer = (await api.post("/workflows", {"name": "Middle", "steps": middle})).data["id"]
    steps = [{"kind": "workflow", "workflow_id": outer, "for_each": "[`1`, `2`]"}]
    played = (await api.post("/workflows/simulate", {"steps": steps})).data
    assert (played["status"], played["missing_agents"]) == ("completed", ["nobody", "nobody_below"])
    await api.post(f"/workflows/{outer}/archive")
    refused = (await api.post("/workflows/simulate", {"steps": steps})).data
    assert (refused["status"], refused["error"]["code"]) == ("failed", "workflow_archived")
    assert refused["missing_agents"] == []


async def test_nothing_is_made(api: Api) -> None:
    before = [(await api.get(path)).json for path in ("/workflows", "/executions", "/tasks")]
    assert (await api.post("/workflows/simulate", {"steps": STEPS})).status == 200
    assert [(await api.get(path)).json for path in ("/workflows", "/executions", "/tasks")] == before


async def test_what_is_wrong_is_named(api: Api) -> None:
    unknown = await api.post("/workflows/simulate", {"steps": STEPS, "outcomes": [ROWS, ROWS, {"step_id": "x"}]})
    assert (unknown.status, unknown.fields) == (400, ["outcomes[1].step_id", "outcomes[2].step_id"])
    cyclic = [{"id": "a", "agent_type": "t", "depends_on": ["a"]}]
    for path, body in (("/workflows", {"name": "Cyclic", "steps": cyclic}), ("/workflows/simulate", {"steps": cyclic})):
        refused = await api.post(path, body)
        assert (refused.status, refused.fields) == (400, ["steps[0].depends_on"])
    named = [{"kind": "workflow", "workflow_id": "workflow_none"}]
    refused = await api.post("/workflows/simulate", {"steps": named})
    assert (refused.status, refused.fields) == (400, ["steps[0].workflow_id"])
    assert (await api.post("/workflows/workflow_none/simulate", {})).status == 404

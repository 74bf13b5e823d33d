"""Workflows as they are kept, over REST and gRPC alike."""

import secrets
from typing import Any

import pytest

from tests.contract.conftest import Api

STEPS: list[dict[str, Any]] = [
    {"id": "step_1", "name": "Data Extraction", "agent_type": "data_extractor", "order": 1},
    {"id": "step_2", "name": "Data Processing", "agent_type": "data_processor", "order": 2},
]
# Every field of a step that can stand together.
FULL: list[dict[str, Any]] = [
    {
        "id": "fetch",
        "name": "Fetch",
        "agent_type": "fetcher",
        "type": "fetch",
        "order": 1,
        "input": "{url: parameters.url}",
        "condition": "parameters.url",
        "for_each": "parameters.urls",
        "max_parallel": 7,
        "retry": {"attempts": 2, "backoff": 0.5, "max_backoff": 3.0, "jitter": False},
        "timeout": 1.5,
        "on_failure": "compensate",
        "compensate": {"agent_type": "cleaner", "type": "clean", "input": "{what: steps.fetch.output}"},
    },
    {"id": "ask", "name": "ask", "order": 2, "kind": "approval", "depends_on": ["fetch"], "timeout": 60.0},
]


async def workflow(api: Api, **fields: Any) -> Any:
    """A new one."""
    answer = await api.post("/workflows", {"name": "Pipeline", "steps": STEPS, **fields})
    assert answer.status == 201, answer
    return answer.data


async def test_a_workflow_is_shown_as_it_was_made_alone_and_in_the_list(api: Api) -> None:
    made = await workflow(api, name="Data Pipeline Workflow", description="Complete data processing pipeline")
    assert made["id"].startswith("workflow_")
    assert made["updated_at"] == made["created_at"]
    assert {key: made[key] for key in ("name", "description", "status", "version", "steps")} == {
        "name": "Data Pipeline Workflow",
        "description": "Complete data processing pipeline",
        "status": "active",
        "version": 1,
        "steps": STEPS,
    }
    assert (await api.get(f"/workflows/{made['id']}")).data == made
    assert (await api.get("/workflows", limit=1)).data == [made]


async def test_steps_come_back_as_sent_with_what_was_left_out_of_id_name_and_order(api: Api) -> None:
    assert (await workflow(api, steps=FULL))["steps"] == FULL
    bare = await workflow(api, steps=[{"agent_type": "a"}, {"agent_type": "b", "id": "own"}, {"kind": "approval"}])
    assert bare["steps"] == [
        {"id": "step_1", "name": "step_1", "agent_type": "a", "order": 1},
        {"id": "own", "name": "own", "agent_type": "b", "order": 2},
        {"id": "step_3", "name": "step_3", "kind": "approval", "order": 3},
    ]


WRONG: list[tuple[Any, str]] = [
    ({"steps": STEPS}, "name"),
    ({"name": "n"}, "steps"),
    ({"name": "n", "steps": []}, "steps"),
    ({"name": "n", "steps": [{"agent_type": "a"}] * 1001}, "steps"),
    ({"name": "n", "steps": [{}]}, "steps[0].agent_type"),
    ({"name": "n", "steps": [{"agent_type": "a", "agent": "x"}]}, "steps[0].agent"),
    ({"name": "n", "steps": [{"agent_type": "a", "on_failure": "ignore"}]}, "steps[0].on_failure"),
    ({"name": "n", "steps": [{"agent_type": "a", "id": "1st"}]}, "steps[0].id"),
    ({"name": "n", "steps": [{"agent_type": "a", "id": "a"}, {"agent_type": "b", "id": "a"}]}, "steps[1].id"),
    ({"name": "n", "steps": [*STEPS, {"agent_type": "a", "depends_on": ["none"]}]}, "steps[2].depends_on"),
    ({"name": "n", "steps": [{"agent_type": "a", "input": "steps.["}]}, "steps[0].input"),
    ({"name": "n", "steps": [{"agent_type": "a", "condition": "steps.later.output"}]}, "steps[0].condition"),
    ({"name": "n", "steps": [STEPS[0], {"kind": "workflow"}]}, "steps[1].workflow_id"),
    (
        {"name": "n", "steps": [STEPS[0], {"kind": "workflow", "workflow_id": "workflow_none"}]},
        "steps[1].workflow_id",
    ),
    ({"name": "n", "steps": [{"agent_type": "a", "timeout": 0}]}, "steps[0].timeout"),
    # What PostgreSQL cannot keep, in texts of their own or in the error that tells of an expression.
    ({"name": "n", "description": "a\0", "steps": STEPS}, "description"),
    ({"name": "n", "steps": [{"agent_type": "a", "condition": "abs('\0')"}]}, "steps[0].condition"),
    ({"name": "n", "steps": [{"agent_type": "a", "for_each": "abs('\0')"}]}, "steps[0].for_each"),
    ({"name": "n", "steps": [{"agent_type": "a", "input": "abs('\0')"}]}, "steps[0].input"),
    (
        {"name": "n", "steps": [{"agent_type": "a", "compensate": {"input": "abs('\0')"}}]},
        "steps[0].compensate.input",
    ),
]


@pytest.mark.parametrize(("body", "field"), WRONG)
async def test_what_is_wrong_with_a_workflow_names_the_step_and_the_field(api: Api, body: Any, field: str) -> None:
    answer = await api.post("/workflows", body)
    assert (answer.status, answer.code, answer.fields) == (400, "validation_error", [field])


async def test_u0000_is_refused_in_all_that_may_stand_in_a_message(api: Api) -> None:
    text = "'a\0b'"
    step = {"agent_type": "a", "input": text, "condition": text, "for_each": text, "compensate": {"input": text}}
    answer = await api.post("/workflows", {"name": "n", "description": text, "steps": [step]})
    expressions = [f"steps[0].{name}" for name in ("input", "condition", "for_each", "compensate.input")]
    assert (answer.status, answer.fields) == (400, ["description", *expressions])
    made = await workflow(api)
    assert (await api.put(f"/workflows/{made['id']}", {"description": text})).fields == ["description"]


async def test_a_cycle_is_named(api: Api) -> None:
    steps = [
        {"id": "a", "agent_type": "t", "depends_on": ["b"]},
        {"id": "b", "agent_type": "t", "depends_on": ["a"]},
    ]
    answer = await api.post("/workflows", {"name": "n", "steps": steps})
    assert (answer.status, answer.fields) == (400, ["steps[0].depends_on"])
    assert "'a' needs 'b' needs 'a'" in answer.json["error"]["message"]


async def test_an_update_makes_a_version_of_what_is_given_and_what_was(api: Api) -> None:
    made = await workflow(api, description="first")
    renamed = await api.put(f"/workflows/{made['id']}", {"name": "Renamed"})
    assert renamed.status == 200
    assert renamed.data == made | {"name": "Renamed", "version": 2, "updated_at": renamed.data["updated_at"]}
    assert renamed.data["updated_at"] > made["updated_at"]
    changed = (await api.put(f"/workflows/{made['id']}", {"steps": FULL, "description": "third"})).data
    assert (changed["name"], changed["description"], changed["version"]) == ("Renamed", "third", 3)
    assert changed["steps"] == FULL
    assert (await api.get(f"/workflows/{made['id']}")).data == changed
    first = (await api.get(f"/workflows/{made['id']}", version=1)).data
    assert (first["version"], first["steps"], first["updated_at"]) == (1, STEPS, made["created_at"])
    assert (await api.get(f"/workflows/{made['id']}", version=4)).status == 404


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": ""}, "name"),
        ({"status": "archived"}, "status"),
        ({"steps": [{"agent_type": "a", "for_each": "["}]}, "steps[0].for_each"),
        ({"steps": [STEPS[0], {"kind": "workflow", "workflow_id": "<itself>"}]}, "steps[1].workflow_id"),
    ],
)
async def test_a_bad_update_names_the_field_and_makes_no_version(api: Api, change: Any, field: str) -> None:
    made = await workflow(api)
    for step in change.get("steps", []):
        if step.get("workflow_id") == "<itself>":
            change = {"steps": [STEPS[0], {"kind": "workflow", "workflow_id": made["id"]}]}
    answer = await api.put(f"/workflows/{made['id']}", change)
    assert (answer.status, answer.fields) == (400, [field])
    assert (await api.get(f"/workflows/{made['id']}")).data == made


async def test_a_step_may_be_another_workflow_of_the_project(api: Api) -> None:
    inner = await workflow(api)
    steps: list[Any] = [{"id": "all", "name": "all", "kind": "workflow", "workflow_id": inner["id"], "order": 1}]
    assert (await workflow(api, steps=steps))["steps"] == steps


async def test_an_archived_workflow_is_shown_and_neither_changed_nor_executed(api: Api) -> None:
    made = await workflow(api)
    path = f"/workflows/{made['id']}"
    answer = await api.post(f"{path}/archive")
    assert (answer.status, answer.data) == (200, made | {"status": "archived"})
    assert (await api.post(f"{path}/archive", {})).data == answer.data
    for refused in (await api.put(path, {"name": "x"}), await api.post(f"{path}/execute", {})):
        assert (refused.status, refused.code) == (409, "conflict")
    assert (await api.get(path)).data == answer.data
    assert (await api.get("/workflows", status="archived", limit=1)).data == [answer.data]
    assert made["id"] not in [each["id"] for each in (await api.get("/workflows", status="active", limit=100)).data]


async def test_a_workflow_that_does_not_exist_is_not_found(api: Api) -> None:
    path = "/workflows/workflow_none"
    answers = [
        await api.get(path),
        await api.put(path, {"name": "x"}),
        await api.post(f"{path}/archive"),
        await api.post(f"{path}/execute", {}),
    ]
    assert [(each.status, each.json["error"]["message"]) for each in answers] == [
        (404, "there is no such workflow")
    ] * 4


async def test_the_same_create_with_the_same_key_is_done_once(api: Api) -> None:
    key, body = secrets.token_hex(8), {"name": secrets.token_hex(8), "steps": STEPS}
    first = await api.post("/workflows", body, key=key)
    again = await api.post("/workflows", body, key=key)
    assert (again.status, again.data, again.headers["idempotent-replayed"]) == (201, first.data, "true")
    assert "idempotent-replayed" not in first.headers
    other = await api.post("/workflows", body | {"name": "other"}, key=key)
    assert (other.status, other.code) == (409, "idempotency_conflict")


async def test_pages_go_by_number_or_behind_a_workflow(api: Api) -> None:
    made = [(await workflow(api))["id"] for _ in range(3)]
    first = await api.get("/workflows", limit=2)
    assert [each["id"] for each in first.data] == [made[2], made[1]]
    total = first.json["pagination"]["total"]
    assert first.json["pagination"] == {"page": 1, "limit": 2, "total": total, "pages": -(-total // 2)}
    assert (await api.get("/workflows", limit=2, page=2)).data[0]["id"] == made[0]
    assert (await api.get("/workflows", limit=2, starting_after=made[1])).data[0]["id"] == made[0]
    refused = await api.get("/workflows", starting_after="workflow_none")
    assert (refused.status, refused.fields) == (400, ["starting_after"])
    assert "workflow_none" not in refused.json["error"]["message"]


async def test_what_is_wrong_with_very_many_steps_is_told_of_the_first(api: Api) -> None:
    steps = [{"id": "same", "agent_type": "t", "condition": "nope.x"} for _ in range(1000)]
    refused = await api.post("/workflows", {"name": "Wrong", "steps": steps})
    assert refused.status == 400
    assert refused.fields[:3] == ["steps[0].condition", "steps[1].id", "steps[1].condition"]
    assert 20 <= len(refused.fields) <= 100

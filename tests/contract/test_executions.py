"""Executions over REST and gRPC alike, with agents that are spoken by hand."""

import asyncio
import json
import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from agent_orchestration.v1 import runners_pb2
from tests.api.conftest import RawRunner
from tests.contract.conftest import Api

ERROR: Any = {"failure": runners_pb2.Failure(code="task_error", message="boo", not_retryable=True)}


@dataclass
class Line:
    """One agent of a type of its own, which does the work of all steps by hand."""

    api: Api
    runner: RawRunner
    type: str

    def step(self, identifier: str, **fields: Any) -> Any:
        return {"id": identifier, "agent_type": self.type, "type": "work", **fields}

    async def execute(self, steps: list[Any], **fields: Any) -> str:
        """The id of an execution of a new workflow."""
        made = await self.api.post("/workflows", {"name": "Line", "steps": steps})
        assert made.status == 201, made
        answer = await self.api.post(f"/workflows/{made.data['id']}/execute", fields)
        assert answer.status == 201, answer
        return answer.data["id"]

    async def work(self, result: str = "{}", **outcome: Any) -> Any:
        """Ends the next task; returns the payload that it had."""
        assignment = await self.runner.assigned()
        assert await self.runner.finish(assignment.attempt.task_id, 1, **(outcome or {"result": result}))
        return json.loads(assignment.payload)

    async def shown(self, execution_id: str, **query: Any) -> Any:
        return (await self.api.get(f"/executions/{execution_id}", **query)).data


@asynccontextmanager
async def _line(api: Api) -> AsyncGenerator[Line]:
    type_ = f"type_{secrets.token_hex(6)}"
    agent_id = await api.agent(type=type_, configuration={"retry_attempts": 0})
    async with api.runner(agent_id) as runner:
        yield Line(api, runner, type_)


@pytest.fixture
async def line(api: Api) -> AsyncGenerator[Line]:
    async with _line(api) as line:
        yield line


def statuses(execution: Any) -> dict[str, str]:
    return {step["id"]: step["status"] for step in execution["steps"]}


async def test_steps_run_in_their_order_each_given_what_the_one_before_returned(line: Line) -> None:
    api = line.api
    steps = [line.step("extract", order=1), line.step("process", order=2), line.step("load", order=3)]
    made = (await api.post("/workflows", {"name": "Line", "steps": steps})).data
    parameters = {"source": "production", "big": 12345678901234567890}
    begun = await api.post(f"/workflows/{made['id']}/execute", {"parameters": parameters, "priority": "high"})
    assert begun.status == 201
    execution = begun.data
    assert (execution["status"], execution["priority"], execution["workflow_version"]) == ("running", "high", 1)
    assert (execution["parameters"], execution["workflow_id"]) == (parameters, made["id"])
    assert statuses(execution) == dict.fromkeys(("extract", "process", "load"), "pending")
    assert (await line.work('{"rows": 3}')) == {"parameters": parameters, "previous": {}}
    assert (await line.work('{"rows": 2}'))["previous"] == {"extract": {"rows": 3}}
    half = await line.shown(execution["id"])
    assert (half["status"], "output" in half, "completed_at" in half) == ("running", False, False)
    assert statuses(half) == {"extract": "completed", "process": "completed", "load": "running"}
    assert (await line.work('{"done": 1.0}'))["previous"] == {"process": {"rows": 2}}
    whole = await line.shown(execution["id"], wait=20)
    assert (whole["status"], whole["output"]) == ("completed", {"load": {"done": 1.0}})
    assert whole["completed_at"] > whole["created_at"]
    step = whole["steps"][1]
    assert step["input"] == {"parameters": parameters, "previous": {"extract": {"rows": 3}}}
    assert (step["output"], step["attempts"], step["order"], step["agent_type"]) == ({"rows": 2}, 1, 2, line.type)
    task = await api.shown(step["task_ids"][0])
    assert (task["priority"], task["execution_id"], task["step_id"]) == ("high", execution["id"], "process")
    assert (await api.get(f"/executions/{execution['id']}/steps/process")).data == step


async def test_more_executions_of_a_step_than_one_transaction_has_room_for_begin_and_end(line: Line) -> None:
    skipped = [line.step("never", condition="parameters.item < `0`")]
    inner = (await line.api.post("/workflows", {"name": "Inner", "steps": skipped})).data["id"]
    many = {"id": "many", "kind": "workflow", "workflow_id": inner, "for_each": "parameters.of", "max_parallel": 200}
    execution_id = await line.execute([many], parameters={"of": list(range(180))})
    ended = await line.shown(execution_id, wait=30)
    assert (ended["status"], ended["steps"][0]["items"]["completed"]) == ("completed", 180)
    assert ended["output"]["many"] == [{}] * 180


async def test_a_list_of_executions_is_narrowed_and_shows_no_steps(line: Line) -> None:
    api = line.api
    ended = await line.execute([line.step("a")])
    await line.work()
    whole = await line.shown(ended, wait=20)
    own = whole["workflow_id"]
    running = (await api.post(f"/workflows/{own}/execute", {})).data
    listed = await api.get("/executions", workflow_id=own)
    assert [each["id"] for each in listed.data] == [running["id"], ended]
    assert listed.json["pagination"]["total"] == 2
    hidden = ("steps", "parameters", "output")
    assert listed.data[1] == {key: value for key, value in whole.items() if key not in hidden}
    for query, expected in (
        ({"status": "completed"}, [ended]),
        ({"status": "cancelled"}, []),
        ({"created_after": whole["created_at"]}, [running["id"]]),
        ({"created_before": running["created_at"]}, [ended]),
        ({"limit": 1, "page": 2}, [ended]),
        ({"starting_after": running["id"]}, [ended]),
    ):
        found = await api.get("/executions", workflow_id=own, **query)
        assert [each["id"] for each in found.data] == expected, query
    assert (await api.get("/executions", workflow_id="workflow_none")).data == []
    refused = await api.get("/executions", starting_after="execution_none")
    assert (refused.status, refused.fields) == (400, ["starting_after"])


async def test_what_does_not_exist_is_not_found(line: Line) -> None:
    api = line.api
    for path in ("", "/steps/a"):
        assert (await api.get(f"/executions/execution_none{path}")).status == 404
    assert (await api.get("/executions/execution_none", wait=5)).status == 404
    for path in ("cancel", "retry", "steps/a/approve", "steps/a/reject"):
        assert (await api.post(f"/executions/execution_none/{path}")).status == 404
    execution_id = await line.execute([line.step("a")])
    assert (await api.get(f"/executions/{execution_id}/steps/b")).status == 404
    assert (await api.post(f"/executions/{execution_id}/steps/b/approve")).status == 404
    refused = await api.post(f"/executions/{execution_id}/steps/a/reject")
    assert (refused.status, refused.json["error"]["message"]) == (409, "the step is not an approval")


async def test_a_failed_execution_says_why_and_goes_on_from_there(line: Line) -> None:
    api = line.api
    execution_id = await line.execute([line.step("a"), line.step("b"), line.step("c")])
    assert (await api.post(f"/executions/{execution_id}/retry")).status == 409
    await line.work('{"kept": true}')
    await line.work(**ERROR)
    failed = await line.shown(execution_id, wait=20)
    assert statuses(failed) == {"a": "completed", "b": "failed", "c": "cancelled"}
    assert (failed["status"], failed["error"]["code"]) == ("failed", "task_error")
    assert failed["steps"][1]["error"] == {"code": "task_error", "message": "boo"}
    key = secrets.token_hex(8)
    retried = await api.post(f"/executions/{execution_id}/retry", key=key)
    assert (retried.status, retried.data["status"], retried.data["retries"]) == (201, "running", 1)
    again = await api.post(f"/executions/{execution_id}/retry", key=key)
    assert (again.data["retries"], again.headers["idempotent-replayed"]) == (1, "true")
    assert (await line.work())["previous"] == {"a": {"kept": True}}
    await line.work()
    whole = await line.shown(execution_id, wait=20)
    assert (whole["status"], "error" in whole, len(whole["steps"][0]["task_ids"])) == ("completed", False, 1)
    assert len(whole["steps"][1]["task_ids"]) == 2


async def test_a_cancelled_execution_leaves_nothing_pending(line: Line) -> None:
    api = line.api
    execution_id = await line.execute([line.step("a"), line.step("b")])
    task_id = (await line.runner.assigned()).attempt.task_id
    asked = await api.post(f"/executions/{execution_id}/cancel")
    assert (asked.status, asked.data["status"]) == (200, "running")
    assert asked.data["cancel_requested_at"] > asked.data["created_at"]
    await line.runner.receive("cancel")
    assert await line.runner.finish(task_id, 1, cancelled=runners_pb2.Cancelled())
    whole = await line.shown(execution_id, wait=20)
    assert (whole["status"], whole["error"]) == (
        "cancelled",
        {"code": "cancelled", "message": "cancelled on request"},
    )
    assert statuses(whole) == {"a": "cancelled", "b": "cancelled"}
    assert (await api.post(f"/executions/{execution_id}/cancel")).data == whole


async def test_an_undoing_that_waits_says_what_for(line: Line) -> None:
    steps = [line.step("a", compensate={"agent_type": f"{line.type}_gone"}), line.step("b", on_failure="compensate")]
    execution_id = await line.execute(steps)
    await line.work()
    await line.work(**ERROR)
    explained = (await line.api.get(f"/executions/{execution_id}/explain")).data["steps"][0]
    assert (explained["step_id"], explained["status"]) == ("a", "completed")
    assert (explained["reason"]["code"], len(explained["remedies"])) == ("no_agent", 1)
    assert f"{line.type}_gone" in explained["reason"]["message"]
    cancelled = (await line.api.post(f"/executions/{execution_id}/cancel")).data
    assert cancelled["steps"][0]["compensation"] == "cancelled"


async def test_an_undoing_that_fails_says_why(line: Line) -> None:
    steps = [
        line.step("a", compensate={"type": "work"}),
        line.step("b", compensate={"type": "work", "input": "`5`"}),
        line.step("c", on_failure="compensate"),
    ]
    execution_id = await line.execute(steps)
    await line.work()
    await line.work()
    await line.work(**ERROR)
    await line.work(failure=runners_pb2.Failure(code="stuck", message="cannot", not_retryable=True))
    whole = await line.shown(execution_id, wait=20)
    a, b, c = whole["steps"]
    assert (a["status"], a["compensation"]) == ("completed", "failed")
    assert a["error"] == {"code": "stuck", "message": "cannot"}
    assert (b["status"], b["compensation"], b["error"]["code"]) == ("completed", "failed", "invalid_input")
    assert (whole["error"]["code"], c["error"]["code"]) == ("task_error", "task_error")
    explained = (await line.api.get(f"/executions/{execution_id}/explain")).data["steps"]
    assert [each["reason"]["code"] for each in explained] == ["undoing_failed", "undoing_failed", "task_error"]
    assert explained[0]["reason"]["message"].endswith("stuck: cannot")


async def test_an_approval_waits_for_somebody_and_tells_who_it_was(line: Line) -> None:
    api = line.api
    steps = [{"id": "ask", "kind": "approval", "input": "{what: parameters.what}"}, line.step("go")]
    execution_id = await line.execute(steps, parameters={"what": "deploy"})
    waiting = await line.shown(execution_id)
    assert (waiting["status"], waiting["waiting_for"]) == ("running", "approval")
    step = waiting["steps"][0]
    assert (step["status"], step["waiting_for"], step["input"]) == ("running", "approval", {"what": "deploy"})
    approve = f"/executions/{execution_id}/steps/ask/approve"
    decided = await api.post(approve, {"comment": "fine", "who": "Ada"})
    assert (decided.status, statuses(decided.data)) == (200, {"ask": "completed", "go": "running"})
    assert (await api.post(approve, {})).status == 200
    assert (await api.post(f"/executions/{execution_id}/steps/ask/reject")).status == 409
    said = {"approved": True, "who": "Ada", "comment": "fine"}
    assert (await line.work())["previous"] == {"ask": said}
    whole = await line.shown(execution_id, wait=20)
    assert ("waiting_for" in whole, whole["steps"][0]["output"]) == (False, said)


async def test_a_rejection_fails_the_step_in_the_name_of_the_credential(line: Line) -> None:
    execution_id = await line.execute([{"id": "ask", "kind": "approval"}, line.step("go")])
    for verb in ("reject", "approve"):
        refused = await line.api.post(f"/executions/{execution_id}/steps/ask/{verb}", {"comment": "no\0"})
        assert (refused.status, refused.fields) == (400, ["comment"])
    answer = await line.api.post(f"/executions/{execution_id}/steps/ask/reject", {"comment": "no"})
    assert (answer.status, answer.data["status"]) == (200, "failed")
    error = answer.data["steps"][0]["error"]
    assert (error["code"], error["message"].endswith(": no")) == ("rejected", True)
    assert error["message"] != "rejected by : no"


async def test_a_fan_out_shows_its_items_and_gathers_their_results_in_order(line: Line) -> None:
    execution_id = await line.execute(
        [line.step("each", for_each="parameters.list", input="{n: item}", max_parallel=2)],
        parameters={"list": list(range(5))},
    )
    held = list((await line.runner.receive("assign")).assign.assignments)
    half = (await line.shown(execution_id))["steps"][0]
    assert half["items"] == {"total": 5, "completed": 0, "running": 2}
    for begun in range(2, 7):
        last = held.pop()
        result = f'{{"was": {json.loads(last.payload)["n"]}}}'
        assert await line.runner.finish(last.attempt.task_id, 1, result=result)
        if begun < 5:
            held.append(await line.runner.assigned())
    whole = await line.shown(execution_id, wait=20)
    assert whole["output"] == {"each": [{"was": number} for number in range(5)]}
    step = whole["steps"][0]
    assert (step["items"], len(step["task_ids"])) == ({"total": 5, "completed": 5, "running": 0}, 5)
    tasks = await line.api.get("/tasks", execution_id=execution_id, limit=2, page=2)
    assert ([each["id"] for each in tasks.data], tasks.json["pagination"]["total"]) == (step["task_ids"][2:0:-1], 5)
    narrowed = {"execution_id": execution_id, "status": "completed"}
    behind = await line.api.get("/tasks", **narrowed, starting_after=tasks.data[0]["id"])
    assert [each["id"] for each in behind.data] == step["task_ids"][1::-1]
    assert (await line.api.get("/tasks", execution_id=execution_id, status="failed")).data == []
    assert (await line.api.get("/tasks", execution_id="execution_none")).data == []
    assert "input" not in step


async def test_a_workflow_as_a_step_is_an_execution_of_its_own(line: Line) -> None:
    api = line.api
    inner = (await api.post("/workflows", {"name": "Inner", "steps": [line.step("work")]})).data["id"]
    step = {"id": "sub", "kind": "workflow", "workflow_id": inner, "input": "{n: parameters.n}"}
    execution_id = await line.execute([step], parameters={"n": 1})
    assert (await line.work('{"a": 1}'))["parameters"] == {"n": 1}
    whole = await line.shown(execution_id, wait=20)
    assert whole["output"] == {"sub": {"work": {"a": 1}}}
    assert whole["steps"][0]["input"] == {"n": 1}
    (child_id,) = whole["steps"][0]["execution_ids"]
    child = await line.shown(child_id)
    assert (child["parent_execution_id"], child["parent_step_id"]) == (execution_id, "sub")
    assert (child["status"], child["workflow_id"], child["parameters"]) == ("completed", inner, {"n": 1})


async def test_values_that_are_long_stand_at_the_step_alone(line: Line) -> None:
    execution_id = await line.execute([line.step("a")], parameters={"long": "x" * 20_000})
    await line.work(json.dumps({"long": "y" * 20_000}))
    whole = await line.shown(execution_id, wait=20)
    step = whole["steps"][0]
    assert (step["input_omitted"], step["output_omitted"]) == (True, True)
    assert not {"input", "output"} & step.keys()
    alone = (await line.api.get(f"/executions/{execution_id}/steps/a")).data
    assert (alone["output"], alone["input"]["parameters"]) == ({"long": "y" * 20_000}, {"long": "x" * 20_000})
    assert "input_omitted" not in alone
    assert whole["output"] == {"a": alone["output"]}


async def test_the_same_execute_with_the_same_key_begins_one_execution(line: Line) -> None:
    api, key = line.api, secrets.token_hex(8)
    made = (await api.post("/workflows", {"name": "n", "steps": [line.step("a")]})).data["id"]
    first = await api.post(f"/workflows/{made}/execute", {"parameters": {"a": 1}}, key=key)
    await line.work()
    await line.shown(first.data["id"], wait=20)
    again = await api.post(f"/workflows/{made}/execute", {"parameters": {"a": 1}}, key=key)
    assert (again.data, again.headers["idempotent-replayed"]) == (first.data, "true")
    other = await api.post(f"/workflows/{made}/execute", {"parameters": {"a": 2}}, key=key)
    assert (other.status, other.code) == (409, "idempotency_conflict")


async def test_whoever_waits_hears_at_once_that_an_execution_has_ended(line: Line) -> None:
    execution_id = await line.execute([line.step("a")])
    waiting = asyncio.create_task(line.shown(execution_id, wait=60))
    async with asyncio.timeout(20):
        await line.work()
        assert (await waiting)["status"] == "completed"
